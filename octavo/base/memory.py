"""Memory that a process holds without need goes back to the system: for when something large has ended."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

_SMAPS = Path("/proc/self/smaps")
_DONT_NEED = 4
"""MADV_DONTNEED of Linux."""


def trim_heap() -> None:
    """The C library keeps freed memory for itself unless told otherwise; only glibc has such a call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def unmap_library_pages() -> None:
    """Let go of the pages of shared libraries that only the start has read; nothing elsewhere than on Linux.

    Torch's libraries are 400 MB, of which a start touches 70 and serving some 15. They stay in the system's
    page cache, but count no longer as this process's, and go first when memory is short. What is read
    again is mapped again, 16 pages at a time.
    """
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is None or not _SMAPS.exists():
        return
    for start, end in _clean_library_ranges(_SMAPS.read_text()):
        advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONT_NEED)


def _clean_library_ranges(smaps: str) -> Iterator[tuple[int, int]]:
    """Code and constants of libraries: mapped from the file, and no page ever changed."""
    start = end = 0
    for line in smaps.splitlines():
        fields = line.split()
        if not fields[0].endswith(":"):
            is_library = len(fields) == 6 and ".so" in fields[5] and fields[1] in ("r-xp", "r--p")
            start, end = (int(part, 16) for part in fields[0].split("-")) if is_library else (0, 0)
        elif fields[0] == "Anonymous:" and fields[1] == "0" and end:
            yield start, end
