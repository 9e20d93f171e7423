"""Somebody who pauses the engine, puts it to sleep, wakes it up and ends requests, while it is at work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from contextlib import suppress

from octavo.base.errors import EngineError
from octavo.engine.async_llm import AsyncLLM


class Operator:
    """Works until it is not needed any more, and then leaves the engine awake."""

    def __init__(self, rng: random.Random, *, is_busy: bool) -> None:
        self.is_busy = is_busy
        self.is_needed = True
        self._rng = rng

    async def work(self, engine: AsyncLLM) -> None:
        if not self.is_busy:
            return
        while self.is_needed and not engine._failure:
            await asyncio.sleep(self._rng.uniform(0.0, 3.0))
            await self._do_something(engine)
        while not engine._failure:
            with suppress(EngineError):  # There may be no core to wake up at the moment.
                await engine.wake_up()
                return
            await asyncio.sleep(0.5)

    async def _do_something(self, engine: AsyncLLM) -> None:
        rng = self._rng
        level, mode = rng.choice([1, 2]), rng.choice(["wait", "abort"])
        match rng.choice(["end one", "end one", "pause", "sleep", "wake up", "forget"]):
            case "end one":
                if names := engine.open_request_ids():
                    await engine.abort(rng.choice(names))
            case "pause":
                await self._patiently(engine.rest.pause(mode))
                await asyncio.sleep(rng.uniform(0.0, 1.0))
                engine.rest.resume()
            case "sleep":
                await self._patiently(engine.sleep(level, mode))
            case "wake up":
                await self._patiently(engine.wake_up())
            case "forget":
                await self._patiently(engine.reset_prefix_cache())

    async def _patiently(self, wish: Awaitable[object]) -> None:
        """Or not: it may be cancelled in the midst. What no core is there for fails, which is no fault."""
        with suppress(EngineError, TimeoutError):
            async with asyncio.timeout(self._rng.choice([0.02, 0.1, 5.0, None])):
                await wish
