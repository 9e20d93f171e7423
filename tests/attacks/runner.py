"""The one runner of all rows: the attack, a victim beside it, its budget, then the after-check L."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

from tests.attacks.after import (
    RSS_BAND,
    Baseline,
    baseline,
    canary_problems,
    crowding,
    log_problems,
    resident_bytes,
    settled,
    slowness,
)
from tests.attacks.arena import Arena
from tests.attacks.row import Outcome, Row
from tests.attacks.streams import Victim

NUM_REPEATS = 3


class Runner:
    """Runs rows against one arena."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self._baseline: Baseline = baseline(arena)
        self._restarts: int = self._baseline.account["core_restarts"]

    def run(self, row: Row) -> Outcome:
        """Never raises: what went wrong is in the outcome."""
        self.arena.account()  # forgets the longest lag so far
        victim = Victim(self.arena.victim, self.arena.golden_victim) if row.with_victim else None
        began = time.monotonic()
        with victim or nullcontext():
            problems = self._attack(row)
            seconds = time.monotonic() - began
            self.arena.close_opened()
        if seconds > row.budget_ms / 1000 * slowness():
            problems.append(f"it took {seconds:.2f} s of {row.budget_ms} ms")
        if victim is not None:
            problems += [f"victim: {text}" for text in victim.wrong]
            if not victim.num_right and not victim.wrong:
                problems.append("no victim was there to be harmed")
        account, after = self._after(row)
        num_right = victim.num_right if victim is not None else 0
        return Outcome(
            row=row,
            problems=problems + after,
            seconds=seconds,
            stall_ms=1000 * account.get("longest_busy_s", 0.0),
            restarts=self._count_restarts(account),
            leaked_blocks=account.get("kv_blocks_held", 0),
            num_victims=num_right,
        )

    def _attack(self, row: Row) -> list[str]:
        try:
            row.attack(self.arena)
        except AssertionError as error:
            return [str(error)[:1000] or "a check of the row failed"]
        except Exception as error:  # a lost connection and the like is an outcome, too
            return [f"{type(error).__name__}: {error}"[:1000]]
        return []

    def _after(self, row: Row) -> tuple[dict[str, Any], list[str]]:
        problems = canary_problems(self.arena)
        try:
            account, left = settled(self.arena, self._baseline)
        except Exception as error:  # whatever it is, the server does not serve
            return {}, [*problems, f"accounting: {type(error).__name__}: {error}"[:500]]
        problems += left
        problems += self._leak(row)
        problems += log_problems(self.arena, self._baseline, row.allowed_log)
        busy_ms = 1000 * account["longest_busy_s"]
        if busy_ms > row.stall_ms * crowding():
            problems.append(f"the event loop was busy for {busy_ms:.0f} ms in one piece")
        if account["core_restarts"] > self._restarts and not row.may_restart:
            problems.append("the engine core was started anew")
        return account, problems

    def _leak(self, row: Row) -> list[str]:
        """Whether it takes memory every time. What an allocator keeps of a peak it takes once, and a helper
        process that begins anew behind a bomb comes once, too."""
        sizes = [resident_bytes(self.arena)]
        if sizes[0] - self._baseline.resident_bytes <= RSS_BAND:
            return []
        for _ in range(NUM_REPEATS):
            self._attack(row)
            self.arena.close_opened()
            settled(self.arena, self._baseline)
            sizes.append(resident_bytes(self.arena))
            if sizes[-1] - sizes[-2] <= RSS_BAND / 4:
                self._baseline.resident_bytes = sizes[-1]
                return []
        return [f"memory grew every time it came, MiB: {[size >> 20 for size in sizes]}"]

    def _count_restarts(self, account: dict[str, Any]) -> int:
        before, self._restarts = self._restarts, account.get("core_restarts", self._restarts)
        return self._restarts - before
