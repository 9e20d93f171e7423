"""A core in a simulated process behind a simulated network: both are slow at times, and it dies at times."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field

import msgspec

from octavo.base.errors import EngineError, OctavoError
from octavo.core.loop import EngineCore
from octavo.engine.core_client import raised
from octavo.engine.core_failure import describe_failure
from octavo.engine.core_serve import take_turn
from octavo.engine.core_start import core_on
from octavo.messages.request import EngineRequest, Samples
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.wire import CoreFailed, FromCore, ToCore
from tests.simulation.scenario import Scenario
from tests.simulation.simulated_executor import SimulatedExecutor

MAX_DELAY_S = 0.02
"""Of a message, either way."""
MAX_STEP_S = 0.05


@dataclass
class Fates:
    """What becomes of the cores of one simulation: shares of steps and of starts. Counts what was drawn."""

    rng: random.Random
    death_share: float
    stall_share: float
    failed_start_share: float
    hanging_start_share: float
    num_deaths: int = 0
    num_stalls: int = 0
    num_failed_starts: int = 0
    num_starts: int = 0
    poisoned: dict[tuple[int, ...], int] = field(default_factory=dict)
    """By prompt: the number of tokens from which on it spoils its steps."""
    surprises: list[BaseException] = field(default_factory=list)
    """What went wrong in cores without being asked for."""

    def step(self) -> str:
        draw = self.rng.random()
        if draw < self.death_share:
            self.num_deaths += 1
            return "dies"
        if draw < self.death_share + self.stall_share:
            self.num_stalls += 1
            return "hangs"
        return "works"

    def start(self) -> str:
        self.num_starts += 1
        draw = self.rng.random()
        if self.num_starts == 1 or draw >= self.failed_start_share + self.hanging_start_share:
            return "works"  # A first start that fails is an error of the options, not of the machine.
        self.num_failed_starts += 1
        return "dies" if draw < self.failed_start_share else "hangs"


class SimulatedProcess:
    """A CoreClient. Messages go through their codec, in order, and take a moment."""

    is_same_process = False

    def __init__(self, scenario: Scenario, fates: Fates) -> None:
        self._fates = fates
        self._rng = fates.rng
        self._loop = asyncio.get_running_loop()
        self._poison: dict[str, int] = {}
        self.executor = SimulatedExecutor(scenario, self._rng, self._poison)
        self.core: EngineCore | None = None
        self._task: asyncio.Task[None] | None = None
        self._on_the_way: deque[bytes] = deque()
        self._inbox: deque[bytes] = deque()
        self._has_mail = asyncio.Event()
        self._due = 0.0
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._is_killed = asyncio.Event()
        self._failure: CoreFailed | None = None
        self.is_hanging = False
        self.ended_itself = False
        """After failures of its executor."""
        self._reports: list[bytes] = []
        self._encoder = msgspec.msgpack.Encoder()
        self._to_core: msgspec.msgpack.Decoder[ToCore] = msgspec.msgpack.Decoder(ToCore)
        self._from_core: msgspec.msgpack.Decoder[FromCore] = msgspec.msgpack.Decoder(FromCore)

    async def launch(self) -> None:
        await asyncio.sleep(self._rng.uniform(0.0, 0.5))

    async def start(self, start: StartCore) -> CoreReady:
        await asyncio.sleep(self._rng.uniform(0.1, 3.0))
        fate = self._fates.start()
        if fate == "hangs":
            await self._is_killed.wait()
        if fate != "works":
            raise EngineError("It died while it started.")
        self.core, ready = core_on(self.executor, start.config, self._loop.time)
        self._task = asyncio.create_task(self._run(self.core))
        self._task.add_done_callback(self._look)
        return ready

    def send(self, message: ToCore) -> None:
        if self._failure is not None:
            return
        for sample in _samples(message):
            spoils_at = self._fates.poisoned.get(tuple(sample.prompt_token_ids))
            if spoils_at is not None:
                self._poison[sample.request_id] = spoils_at
        self._on_the_way.append(self._encoder.encode(message))
        self._due = max(self._due, self._loop.time() + self._rng.uniform(0.0, MAX_DELAY_S))
        self._loop.call_at(self._due, self._arrive)

    async def receive(self) -> list[FromCore]:
        if self._outbox.empty() and self._failure is not None:
            raise raised(self._failure)
        frames = [await self._outbox.get()]
        while not self._outbox.empty():
            frames.append(self._outbox.get_nowait())
        messages = [self._from_core.decode(frame) for frame in frames if frame]
        if not messages:
            assert self._failure is not None, "an empty frame says that it is dead"
            raise raised(self._failure)
        return messages

    async def end_stuck(self) -> bool:
        await asyncio.sleep(0.5)
        self.kill("It was stuck.")
        return True

    async def close(self) -> None:
        self.kill("It was closed.")
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def kill(self, why: str) -> None:
        """What it has not sent yet is lost; what is on its way arrives."""
        self._is_killed.set()
        if self._failure is None:
            self._die(CoreFailed(error="EngineError", code="ENGINE_FAILED", message=why))

    def _die(self, failure: CoreFailed) -> None:
        self._failure = failure
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._outbox.put_nowait(b"")

    async def _run(self, core: EngineCore) -> None:
        goes_on = True
        while goes_on:
            if not core.has_work() and not self._inbox:
                self._has_mail.clear()
                await self._has_mail.wait()
            fate = self._fates.step()
            if fate == "hangs":
                self.is_hanging = True
                await self._is_killed.wait()
            if fate == "dies":
                self.kill("It was killed.")
                return
            try:
                goes_on = take_turn(core, _Channel(self))
            except OctavoError as error:
                self.ended_itself = True
                self._die(describe_failure(error))
                return
            core.check()
            assert self.executor.surprise is None, self.executor.surprise
            await asyncio.sleep(self._rng.uniform(0.0, MAX_STEP_S))
            for report in self._reports:
                self._outbox.put_nowait(report)
            self._reports.clear()
        self.kill("It was told to end.")

    def _look(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fates.surprises.append(error)
            self.kill("It surprised us.")

    def _arrive(self) -> None:
        self._inbox.append(self._on_the_way.popleft())
        self._has_mail.set()


def _samples(message: ToCore) -> list[EngineRequest]:
    if isinstance(message, Samples):
        return message.apart()
    return [message] if isinstance(message, EngineRequest) else []


class _Channel:
    """The core's end."""

    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process

    def receive(self, wait: bool) -> list[ToCore]:
        inbox = self._process._inbox
        assert inbox or not wait, "it would wait for ever"
        messages = [self._process._to_core.decode(frame) for frame in inbox]
        inbox.clear()
        return messages

    def send(self, message: FromCore) -> None:
        self._process._reports.append(self._process._encoder.encode(message))
