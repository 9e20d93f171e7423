"""Rest: pausing an engine, putting it to sleep and waking it up. While it rests, requests are refused.

An engine falls asleep without requests: those that run end first, or are ended. Nothing waits inside a
sleeping engine, so nobody can be forgotten there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from octavo.base.errors import EngineError, ErrorCode, RequestError
from octavo.messages.wire import Order, OrderDone, Sleep, WakeUp

LEVELS = (1, 2)
MODES = ("wait", "abort")

_PAUSED = "The server is paused. Send the request again later; an operator resumes it with POST /resume."
_ASLEEP = "The model sleeps. Send the request again later; an operator wakes it up with POST /wake_up."


class Rest:
    """One per engine. Changes come one after the other."""

    def __init__(
        self,
        order: Callable[[Order], Coroutine[Any, Any, OrderDone]],
        idle: Callable[[], Awaitable[object]],
        abort_all: Callable[[], None],
    ) -> None:
        self._order = order
        self._idle = idle
        self._abort_all = abort_all
        self._changing = asyncio.Lock()
        self.is_paused = False
        self.sleep_level = 0
        """0: awake."""
        self._is_falling_asleep = False
        self._sleep_in_next: asyncio.Task[OrderDone] | None = None

    def check_awake(self) -> None:
        """Raise EngineError unless requests are welcome."""
        if self.sleep_level or self._is_falling_asleep:
            raise EngineError(_ASLEEP, code=ErrorCode.ASLEEP)
        if self.is_paused:
            raise EngineError(_PAUSED, code=ErrorCode.PAUSED)

    async def pause(self, mode: str) -> None:
        """Take no more requests; return when none runs. `mode`: let them end, or end them."""
        check_mode(mode)
        self.is_paused = True
        await self._quiet(mode)

    def resume(self) -> None:
        self.is_paused = False

    async def sleep(self, level: int, mode: str) -> None:
        """The same, then give memory back. From level 1 it can go on to 2."""
        if level not in LEVELS:
            raise RequestError(f"level is {level}; it must be 1 or 2.", param="level")
        check_mode(mode)
        if mode == "abort":
            self._abort_all()  # Also those that an earlier call is still waiting for.
        async with self._changing:
            if level <= self.sleep_level:
                return
            self._is_falling_asleep = True
            try:
                await self._quiet(mode)
                await self._carry_out(Sleep(level=level), level)
            finally:
                self._is_falling_asleep = False

    def resume_sleep(self) -> None:
        """Another core is there, and awake."""
        if self.sleep_level:
            self._sleep_in_next = asyncio.create_task(self._order(Sleep(level=self.sleep_level)))

    async def wake_up(self) -> None:
        """Back to where `sleep` began. Without effect on who is awake."""
        async with self._changing:
            if self.sleep_level:
                await self._carry_out(WakeUp(), 0)

    async def _carry_out(self, order: Order, level: int) -> None:
        """`level`: where it leads to. The core does it also for a caller who has given up meanwhile."""
        told = asyncio.ensure_future(self._order(order))
        try:
            await asyncio.shield(told)
        finally:
            await asyncio.wait((told,))
            if told.exception() is None:
                self.sleep_level = level

    async def _quiet(self, mode: str) -> None:
        if mode == "abort":
            self._abort_all()
        await self._idle()


def check_mode(mode: str) -> None:
    if mode not in MODES:
        raise RequestError("mode must be 'wait' (running requests end first) or 'abort'.", param="mode")
