"""The compiled library for CPUs: whether there is one, and which of its kernels this processor runs.

Opening it imports nothing heavy and starts no thread; ops/cpu/ says how its functions are called.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

PATH = Path(__file__).parents[1] / "ops" / "cpu" / "libnative.so"
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
VERSION = 10
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
    return max(1, min(_allowed_cores(), _quota()))


def _quota() -> int:
    """Cores' worth of time that the container or service gets: the least that a group above it has."""
    quotas = [CGROUPS / group / "cpu.max" for group in _own_groups()]  # the new hierarchy, then the old
    pairs = [(quota,) for quota in quotas] + [
        (CGROUPS / "cpu" / "cpu.cfs_quota_us", CGROUPS / "cpu" / "cpu.cfs_period_us")
    ]
    return min(map(_cores_of, pairs))


def _own_groups() -> list[Path]:
    """From this process's to the root; a container sees its own as the root."""
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    return [Path(own), *Path(own).parents]


def _cores_of(files: Sequence[Path]) -> int:
    """Files that hold a share of time and the period that it is of."""
    try:
        share, period = " ".join(file.read_text() for file in files).split()
        return -(-int(share) // int(period)) if int(share) > 0 else sys.maxsize
    except (OSError, ValueError):
        return sys.maxsize  # no container, or one without a limit ('max', -1)


def _allowed_cores() -> int:
    cores: set[str] = set()
    for cpu in os.sched_getaffinity(0):
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)
