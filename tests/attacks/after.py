"""After-check L: whatever was done to it, the server is as it was before.

Children, descriptors, tasks and threads as in a baseline; no blocks, no running, no waiting requests. What
takes a moment to be given back gets SETTLE_S.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import psutil

from tests.attacks.arena import Arena

SETTLE_S = 5.0
"""For connections to be closed and blocks to be freed; the list says 2 s on a machine of one's own."""
RSS_BAND = 96 * 2**20
"""Allocators keep some of what they had. What takes more is tried again: a leak takes it again."""
MUST_BE_NONE = ("answering", "open_requests", "running", "waiting", "kv_blocks_held")
MUST_NOT_GROW = ("tasks", "threads", "descriptors", "children")
POOL_THREADS = 8
"""The server's own pool for blocking calls grows up to its bound, then stays."""
_BAD_LINE = re.compile(r"^(.*\b(ERROR|CRITICAL)\b.*|Traceback .*)$", re.MULTILINE)


@dataclass
class Baseline:
    """What a quiet server holds."""

    account: dict[str, Any]
    resident_bytes: int
    """Of the server and all below it."""
    log_size: int


def baseline(arena: Arena) -> Baseline:
    arena.account()
    return Baseline(arena.account(), resident_bytes(arena), arena.log.stat().st_size)


def resident_bytes(arena: Arena) -> int:
    process = psutil.Process(arena.server.process.pid)
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.Error:
            continue
    return total


def settled(arena: Arena, before: Baseline) -> tuple[dict[str, Any], list[str]]:
    """The account once everything was given back, and what was not."""
    deadline = time.monotonic() + SETTLE_S
    worst_lag = worst_busy = 0.0
    while True:
        account = arena.account()
        # Each reading resets them.
        worst_lag = account["longest_lag_s"] = max(worst_lag, account["longest_lag_s"])
        worst_busy = account["longest_busy_s"] = max(worst_busy, account["longest_busy_s"])
        left = _left_over(account, before)
        if not left or time.monotonic() > deadline:
            return account, left
        time.sleep(0.05)


def _left_over(account: dict[str, Any], before: Baseline) -> list[str]:
    left = [f"{name} is {account[name]}, not 0" for name in MUST_BE_NONE if account[name]]
    for name in MUST_NOT_GROW:
        slack = POOL_THREADS if name == "threads" else 0
        if account[name] > before.account[name] + slack:
            left.append(f"{name} grew from {before.account[name]} to {account[name]}")
    return left


def canary_problems(arena: Arena) -> list[str]:
    began = time.monotonic()
    try:
        ids = arena.canary()
    except Exception as error:  # whatever it is, the server does not serve
        return [f"canary: {type(error).__name__}: {error}"[:500]]
    if ids != arena.golden:
        return [f"the canary is not golden: {ids}"]
    took = time.monotonic() - began
    return [f"the canary took {took:.1f} s"] if took > 2.0 * slowness() else []


def log_problems(arena: Arena, before: Baseline, allowed: tuple[str, ...]) -> list[str]:
    """Lines at ERROR, and tracebacks, since the last look."""
    with arena.log.open("rb") as log:
        log.seek(before.log_size)
        text = log.read().decode(errors="replace")
    before.log_size += len(text.encode(errors="replace"))
    bad = [match.group(0) for match in _BAD_LINE.finditer(text)]
    return [f"log: {line[:300]}" for line in bad if not any(word in line for word in allowed)]


def slowness() -> float:
    """How much longer than alone things may take on this machine now."""
    load = psutil.getloadavg()[0] / (psutil.cpu_count() or 1)
    return 2.0 + 2.0 * load


def crowding() -> float:
    """How much more time of a core the same work takes now: other work empties its caches, and shares it."""
    return min(2.0, max(1.0, psutil.getloadavg()[0] / (psutil.cpu_count() or 1)))
