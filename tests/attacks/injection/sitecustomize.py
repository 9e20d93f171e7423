"""Makes our own code fail, now and then: read by every Python that has this folder on its path.

ATTACK_FAULTS names places as `module:Class.method`, comma between; ATTACK_ARMED a file: while it exists, one
call in a hundred of these raises.
"""

from __future__ import annotations

import importlib.machinery
import os
import random
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

SHARE = 0.01
_ARMED = os.environ.get("ATTACK_ARMED", "")
_RNG = random.Random(os.getpid())


def _failing(call: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _RNG.random() < SHARE and os.path.exists(_ARMED):
            raise RuntimeError("injected: secret")
        return call(*args, **kwargs)

    return wrapped


class _Finder:
    """Finds nothing itself: lets the others find one of our modules, and spoils it once it is there."""

    def __init__(self, places: dict[str, list[str]]) -> None:
        self._places = places

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> Any:
        if name not in self._places:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                for place in self._places[name]:
                    kind, _, method = place.partition(".")
                    owner = getattr(module, kind)
                    setattr(owner, method, _failing(getattr(owner, method)))

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _install() -> None:
    places: dict[str, list[str]] = {}
    for site in filter(None, os.environ.get("ATTACK_FAULTS", "").split(",")):
        module, _, place = site.partition(":")
        places.setdefault(module, []).append(place)
    if places:
        sys.meta_path.insert(0, _Finder(places))  # type: ignore[arg-type]


_install()
