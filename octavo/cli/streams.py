"""Standard streams that are closed, have nobody at the other end, or no room; and names of files."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from octavo.base.errors import ConfigError


def open_closed_streams() -> None:
    """A stream that was closed before we began (`>&-`) is empty, or swallows what is written.

    In this order each gets its own descriptor back, so that no socket of ours becomes standard output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for good)


def give_up_stdout() -> None:
    """Nothing more reaches the reader, and the interpreter must not try at its end either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_stdin() -> str:
    """All of standard input. Raises ConfigError if it is not text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"Standard input is not UTF-8 text: {error}.") from None


def user_path(name: str) -> Path:
    """`~` means the home folder; where there is no such user it stays as it is, as in a shell."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)
