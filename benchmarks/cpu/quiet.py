"""Whether a measurement had the machine to itself: CPU time of everything that is not part of it.

A busy neighbour on one of two cores slows engines whose threads wait for each other three to eight times, not
by the share it takes. So a run that somebody else disturbed does not count.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")
MOST_OTHERS = 0.04
"""Share of all cores' time that others may take: the system itself is never quite idle."""


class Usage(NamedTuple):
    """Seconds of CPU time since the machine was started."""

    busy: float
    stolen: float
    """By other machines on the same hardware."""
    ours: float
    idle: float


def usage(roots: list[int]) -> Usage:
    """`ours`: of these processes and all below them, those that have ended included."""
    fields = [int(field) / TICK for field in _read("/proc/stat").splitlines()[0].split()[1:]]
    user, nice, system, idle, wait, irq, softirq, steal = fields[:8]
    processes = _processes()
    tree = _below(set(roots), {pid: parent for pid, (parent, _) in processes.items()})
    ours = sum(processes[pid][1] for pid in tree if pid in processes)
    return Usage(user + nice + system + irq + softirq, steal, ours, idle + wait)


def share_of_others(before: Usage, after: Usage) -> float:
    """Of all cores' time between two readings: other processes and other machines."""
    total = sum(now - then for now, then in zip(after, before, strict=True)) - (after.ours - before.ours)
    others = (after.busy - before.busy) - (after.ours - before.ours) + (after.stolen - before.stolen)
    return max(0.0, others / max(total, 1e-9))


def tree_pss_mib(root: int) -> float:
    """Memory of a process and all below it, pages that several share counted once."""
    total = 0
    for pid in _below({root}, {pid: parent for pid, (parent, _) in _processes().items()}):
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def _processes() -> dict[int, tuple[int, float]]:
    """Process -> its parent, its CPU seconds (with those of children it has waited for)."""
    found: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _read(f"/proc/{entry.name}/stat").rpartition(")")[2].split()
            if fields:
                found[int(entry.name)] = int(fields[1]), sum(map(int, fields[11:15])) / TICK
    return found


def _below(roots: set[int], parents: dict[int, int]) -> set[int]:
    tree = set(roots)
    while True:
        more = {pid for pid, parent in parents.items() if parent in tree} - tree
        if not more:
            return tree
        tree |= more


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""  # it has ended meanwhile
