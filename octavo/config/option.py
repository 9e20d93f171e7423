"""How a field of a config group says what it is: help text, other spellings, allowed values."""

from __future__ import annotations

import dataclasses
from copy import copy
from typing import Any


def option(
    default: Any,
    help: str,
    *,
    aliases: tuple[str, ...] = (),
    choices: tuple[str, ...] | None = None,
    flag: bool = True,
    is_secret: bool = False,
) -> Any:
    """A dataclass field that `flags.py` can turn into a command-line option.

    The flag is the field's name with dashes; `aliases` are further field-style names (vLLM's, where
    ours differ) accepted by LLM(...), the YAML file and the command line alike. flag=False keeps it
    off the command line. is_secret: its value is shown nowhere.
    """
    metadata = {"help": help, "aliases": aliases, "choices": choices, "flag": flag, "is_secret": is_secret}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)
