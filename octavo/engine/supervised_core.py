"""SupervisedCore: a core that is watched, and started again when it died or got stuck."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import EngineError, OctavoError
from octavo.engine.core_client import CoreClient
from octavo.engine.restart_limits import RestartLimits
from octavo.engine.stall_watch import PING_S, TICK_S, StallWatch
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import CoreBusy, CoreUpdate, FromCore, Ping, SetLogLevel, ToCore
from octavo.observe.log import log_fields

logger = logging.getLogger(__name__)

LEAST_START_S = 60.0
"""A core that is started again has twice the time of the first start, or this, and core_stall_timeout."""


class CoreLost(Exception):
    """The core is gone and may be started again. Its requests are not lost: who sent them has them."""

    def __init__(self, cause: OctavoError) -> None:
        super().__init__(cause.message)
        self.cause = cause


class SupervisedCore:
    """One core after the other, each made by `make`. What AsyncLLM talks to.

    A first start that fails is not tried again: its cause is in the options or the model. A core in the
    caller's own process is watched, but not started again: a thread cannot be killed, and what broke
    it may have broken the process.
    """

    def __init__(self, make: Callable[[], CoreClient], clock: Clock = monotonic) -> None:
        self._make = make
        self._core = make()
        self._clock = clock
        self._start: StartCore | None = None
        self._plan_of: CoreReady | None = None
        self._limits = RestartLimits(0, 0.0)
        self._start_limit_s = float("inf")
        self._watch = StallWatch(float("inf"))
        self._watcher: asyncio.Task[None] | None = None
        self._stuck: EngineError | None = None
        self._lost: OctavoError | None = None
        """Why there is no core at the moment."""
        self._was_pinged = False

    @property
    def is_same_process(self) -> bool:
        return self._core.is_same_process

    @property
    def is_down(self) -> bool:
        """A core is gone and the next one is not there yet: what is sent now is dropped."""
        return self._lost is not None

    async def launch(self) -> None:
        await self._core.launch()

    async def start(self, start: StartCore) -> CoreReady:
        supervision = start.config.supervision
        timeout_s = supervision.core_stall_timeout
        assert timeout_s is not None, "the config is resolved"
        self._limits = RestartLimits(supervision.max_core_restarts, supervision.core_restart_window)
        began = self._clock()
        ready = await self._core.start(start)
        # Files are in the page cache by then, kernels compiled: what takes longer hangs.
        self._start_limit_s = max(LEAST_START_S, 2 * (self._clock() - began)) + timeout_s
        # Memory that was free at the first start may be taken at the next: the cache keeps its size.
        cache = dataclasses.replace(start.config.cache, num_blocks=ready.plan.num_blocks)
        self._start = StartCore(config=dataclasses.replace(start.config, cache=cache), path=start.path)
        self._plan_of = ready
        self._watch = StallWatch(timeout_s)
        self._watcher = asyncio.create_task(self._keep_watch(), name="octavo-watch")
        return ready

    def send(self, message: ToCore) -> None:
        if isinstance(message, SetLogLevel) and self._start is not None:
            # Also of those to come: who wants to know why cores die has just asked for more.
            config = self._start.config
            observe = dataclasses.replace(config.observe, log_level=message.level)
            self._start = StartCore(
                config=dataclasses.replace(config, observe=observe), path=self._start.path
            )
        if self._lost is None:
            self._core.send(message)

    async def receive(self) -> list[FromCore]:
        """Raises CoreLost once the core is gone but may be restarted; else its error."""
        try:
            messages = await self._core.receive()
        except OctavoError as error:
            self._lost = self._stuck or error
            if self._core.is_same_process:
                raise
            raise CoreLost(self._lost) from error
        if self._stuck is not None:
            return []  # Woken up to say where it was: it is replaced all the same.
        first, last = messages[0], messages[-1]
        self._watch.heard(
            last.doing if type(last) is CoreBusy else None,
            step_tokens=first.stats.step_tokens if type(first) is CoreUpdate else 0,
        )
        self._was_pinged = False
        return messages

    async def restart(self, lost: CoreLost) -> None:
        """Start another core. Raises EngineError with the first cause when that failed too often."""
        cause = lost.cause
        while True:
            _log_loss(cause)
            await self._core.close()
            pause = self._limits.next_pause(self._clock())
            if pause is None:
                raise EngineError(
                    f"The engine core failed and is not started again: {lost.cause.message}"
                ) from cause
            if pause:
                logger.info("The engine core is started again in %.0f s", pause)
                await asyncio.sleep(pause)
            try:
                await self._start_next()
                return
            except OctavoError as error:
                cause = error

    async def _start_next(self) -> None:
        assert self._start is not None and self._plan_of is not None, "started"
        began = self._clock()
        try:
            self._core = self._make()
            await self._core.launch()
            ready = await self._start_in_time(self._start)
        except OSError as error:
            raise EngineError(f"A new engine core could not be started ({error.strerror}).") from error
        if ready.plan != self._plan_of.plan:
            raise EngineError("The new engine core found another model than the one before.")
        self._watch.heard()
        self._was_pinged = False
        self._stuck = self._lost = None
        logger.info("A new engine core is ready after %.1f s", self._clock() - began)

    async def _start_in_time(self, start: StartCore) -> CoreReady:
        """A core that starts answers no pings: it has as long as the first one took, and much more."""
        starting = asyncio.create_task(self._core.start(start))
        try:
            if not (await asyncio.wait((starting,), timeout=self._start_limit_s))[0]:
                logger.error("A new engine core is not ready after %.0f s: it is killed", self._start_limit_s)
                await self._core.end_stuck()
            return await starting
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)

    def check(self) -> None:
        """Raise EngineError unless there is a core and it makes progress."""
        if self._lost is not None:
            raise EngineError(f"The engine core is being restarted. It had failed: {self._lost.message}")
        if self._watch.is_stalled:
            raise EngineError(f"The engine core gave no sign of life for {self._watch.silent_s:.0f} s.")

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self._lost is None and self._watch.is_stalled:
            await self._core.end_stuck()  # It would not hear that it is to end.
        await self._core.close()

    async def _keep_watch(self) -> None:
        before = self._clock()
        while True:
            await asyncio.sleep(TICK_S)
            before, elapsed_s = (now := self._clock()), now - before
            if self._lost is not None or self._stuck is not None:
                continue
            watch = self._watch
            watch.tick(elapsed_s)
            if watch.is_stuck:
                await self._end_stuck()
            elif watch.silent_s >= PING_S and not self._was_pinged:
                self._was_pinged = True
                self._core.send(Ping())

    async def _end_stuck(self) -> None:
        """Kill it, after it has said where it is. `receive` finds it dead."""
        self._stuck = EngineError(
            f"The engine core gave no sign of life for {self._watch.silent_s:.0f} s and was killed."
        )
        if not await self._core.end_stuck():
            self._stuck = None


def _log_loss(cause: OctavoError) -> None:
    log_fields(
        logger,
        logging.ERROR,
        f"The engine core is lost: {cause.message}",
        error=type(cause).__name__,
        code=cause.code.value.code,
    )
