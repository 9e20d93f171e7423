"""What other users of the machine see of this process: its command line, and ours its environment.

`ps` shows both, from the memory that the kernel put them into. A key has no business there.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc/self")
_ARG_START, _ENV_START = 45, 47
"""Fields 48 and 50 of /proc/self/stat, counted from behind the name; the end of each follows it."""


def hide(secrets: Iterable[str]) -> None:
    """Overwrite each, wherever it stands as a word of its own or behind '='. Python's own copies stay, and
    children inherit the overwritten environment. Does nothing where the kernel does not say where to look."""
    wanted = [secret.encode() for secret in secrets if secret]
    try:
        stat = (PROC / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return
    for first in (_ARG_START, _ENV_START):
        start, end = int(stat[first]), int(stat[first + 1])
        if 0 < start < end:
            _overwrite(start, ctypes.string_at(start, end - start), wanted)


def _overwrite(start: int, block: bytes, secrets: list[bytes]) -> None:
    offset = 0
    for word in block.split(b"\0"):
        for secret in secrets:
            if word == secret or word.endswith(b"=" + secret):
                at = start + offset + len(word) - len(secret)
                ctypes.memset(at, ord("*"), len(secret))
        offset += len(word) + 1
