"""How late the event loop comes: one long callback delays every client of the server by as much.

A probe asks to be called every PROBE_S. What it is late by is the lag; what the loop's thread computed
meanwhile is its own part in it. On a busy machine the lag grows, the loop's own part does not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from octavo.base.clock import Clock, monotonic

PROBE_S = 0.02


class LoopLag:
    """Measures the loop it is started in, all the time: 50 wake-ups a second, about a microsecond each."""

    def __init__(self, *, clock: Clock = monotonic, thread_clock: Clock = time.thread_time) -> None:
        self._clock = clock
        self._thread_clock = thread_clock
        self._listener: Callable[[float], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._computed = 0.0
        self._worst_lag = self._worst_busy = 0.0

    def tell(self, listener: Callable[[float], None]) -> None:
        """Call `listener` with each lag, in seconds."""
        self._listener = listener

    def start(self) -> None:
        """Called in the loop that is measured."""
        self._again()

    def stop(self) -> None:
        """A drain is measured like everything else."""

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def worst(self) -> tuple[float, float]:
        """Since the last call: the longest lag, and the longest time that the loop itself was busy in one
        piece. Seconds."""
        worst = (self._worst_lag, self._worst_busy)
        self._worst_lag = self._worst_busy = 0.0
        return worst

    def _again(self) -> None:
        self._due = self._clock() + PROBE_S
        self._computed = self._thread_clock()
        self._timer = asyncio.get_running_loop().call_later(PROBE_S, self._probe)

    def _probe(self) -> None:
        lag = max(0.0, self._clock() - self._due)
        busy = min(lag, self._thread_clock() - self._computed)
        self._worst_lag = max(self._worst_lag, lag)
        self._worst_busy = max(self._worst_busy, busy)
        if self._listener is not None:
            self._listener(lag)
        self._again()
