"""The compiled library for CPUs: whether there is one, and which of its kernels this processor runs.

Opening it imports nothing heavy and starts no thread; ops/cpu/ says how its functions are called.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from octavo.base import cgroups

PATH = Path(__file__).parents[1] / "ops" / "cpu" / "libnative.so"
VERSION = 11
"""Of the interface, as in native/handle.cpp."""


@cache
def native_library() -> ctypes.CDLL | None:
    """None where the package was built without a compiler, or from other sources."""
    try:
        library = ctypes.CDLL(str(PATH))
    except OSError:
        return None
    if library.octavo_version() != VERSION:
        return None
    library.octavo_kernels.restype = ctypes.c_char_p
    library.octavo_kernels.argtypes = [ctypes.c_char_p]
    return library


@cache
def native_kernels() -> str | None:
    """The fastest kernels that this processor runs ('avx512vnni', 'avx2', ...); None without the library."""
    library = native_library()
    if library is None:
        return None
    name: bytes = library.octavo_kernels(None)
    return name.decode()


def why_no_kernels() -> str:
    """Said where kernels are missed."""
    if not PATH.is_file():
        return "no native kernels were compiled (a C++ compiler at install time makes them)"
    return "the native kernels were compiled from other sources or for another machine; install Octavo anew"


def physical_cores() -> int:
    """Cores that this process may use, two threads of a core counted once; less if a container limits it."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return max(1, min(_allowed_cores(), cgroups.most_cores()))


def _allowed_cores() -> int:
    cores: set[str] = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)
