"""What the container or service of this process may use, as Linux's control groups say: cores and memory.

Each group from the process's own up to the root may have a limit, and the least holds. A container sees its
own group as the root. Files: the kernel's cgroup-v2.rst, and cgroup-v1/ for the old hierarchy, of which the
root alone is read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
NO_LIMIT = sys.maxsize


def most_cores() -> int:
    """Cores' worth of time; NO_LIMIT without one."""
    shares = [(group / "cpu.max",) for group in _own_groups()]
    old = ROOT / "cpu"
    return min(map(_cores_of, [*shares, (old / "cpu.cfs_quota_us", old / "cpu.cfs_period_us")]))


def free_memory() -> int:
    """Bytes that are left; NO_LIMIT without a limit."""
    groups = [(group / "memory.max", group / "memory.current", group, "") for group in _own_groups()]
    old = ROOT / "memory"
    groups.append((old / "memory.limit_in_bytes", old / "memory.usage_in_bytes", old, "total_"))
    return min(_left(limit, used, group / "memory.stat", prefix) for limit, used, group, prefix in groups)


def _own_groups() -> list[Path]:
    """Folders of the new hierarchy, from this process's to the root."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:
        lines = []
    own = Path(next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), ""))
    return [ROOT / group for group in (own, *own.parents)]


def _cores_of(files: Sequence[Path]) -> int:
    """Files that hold a share of time and the period that it is of."""
    try:
        share, period = " ".join(file.read_text() for file in files).split()
        return -(-int(share) // int(period)) if int(share) > 0 else NO_LIMIT
    except (OSError, ValueError):
        return NO_LIMIT  # no group, or one without a limit ('max', -1)


def _left(limit_file: Path, used_file: Path, stat_file: Path, prefix: str) -> int:
    """Files that were read count as used until somebody needs the room: they are as good as free."""
    try:
        left = int(limit_file.read_text()) - int(used_file.read_text())
    except (OSError, ValueError):
        return NO_LIMIT
    try:
        stat = dict(line.split() for line in stat_file.read_text().splitlines())
        left += int(stat[f"{prefix}active_file"]) + int(stat[f"{prefix}inactive_file"])
    except (OSError, ValueError, KeyError):
        pass  # no such accounting
    return max(0, left)
