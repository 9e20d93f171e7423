"""LazyTable: name -> "module:attribute". The only registry mechanism; nothing registers at import time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar

from octavo.base.errors import ConfigError

T = TypeVar("T")


class LazyTable(Generic[T]):
    """A fixed table whose entries are imported when first asked for."""

    def __init__(self, what: str, entries: Mapping[str, str]) -> None:
        self.what = what
        self._entries = dict(entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def module(self, name: str) -> str:
        """Where the entry is, without importing it."""
        return self._entries[name].partition(":")[0]

    def load(self, name: str) -> T:
        """Import and return the entry. Raises ConfigError naming what exists."""
        path = self._entries.get(name)
        if path is None:
            near = get_close_matches(name, self._entries, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            known = ", ".join(sorted(self._entries))
            raise ConfigError(f"Unknown {self.what} {name!r}.{hint} Known: {known}.")
        module, attribute = path.split(":")
        entry: T = getattr(importlib.import_module(module), attribute)
        return entry
