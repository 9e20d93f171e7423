"""Cores that do not come up: who waits for them hears of it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from octavo import EngineError
from octavo.config.root import EngineConfig
from octavo.engine import supervised_core
from octavo.engine.core_process import ProcessCore
from octavo.engine.core_thread import ThreadCore
from octavo.executor.fake import FakeExecutor
from octavo.messages.start import StartCore, WorkerFacts
from octavo.messages.wire import CoreFailed
from tests.tiny import VOCAB_SIZE


async def test_a_core_that_dies_before_it_connects_is_noticed() -> None:
    core = ProcessCore(["-c", "import sys; sys.exit(3)"])
    await core.launch()
    with pytest.raises(EngineError, match="exit status 3"):
        async with asyncio.timeout(20):
            await core.start(StartCore(config=EngineConfig.from_options({}), path="x"))


async def test_a_stuck_core_that_ends_by_itself_before_it_is_killed_is_no_trouble() -> None:
    """Out of memory, say: whoever shuts down must not meet an error of the operating system."""
    core = ProcessCore(["-c", "pass"])
    await core.launch()
    assert core._process is not None
    async with asyncio.timeout(20):
        await core._process.wait()
        assert await core.end_stuck()
        await core.close()


class Slow(FakeExecutor):
    """The second one hangs while it starts, until it is killed."""

    num_made = 0
    is_killed = threading.Event()

    def __init__(self) -> None:
        super().__init__(vocab_size=VOCAB_SIZE)
        type(self).num_made += 1

    def start(self) -> WorkerFacts:
        if self.num_made == 2:
            self.is_killed.wait(20)
            raise RuntimeError("killed")
        return super().start()


class MortalCore(ThreadCore):
    is_same_process = False

    def kill(self) -> None:
        self._report(CoreFailed(error="EngineError", code="ENGINE_FAILED", message="killed"))

    async def end_stuck(self) -> bool:
        Slow.is_killed.set()
        return True


async def test_a_new_core_that_hangs_at_its_start_is_killed_and_replaced(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised_core, "LEAST_START_S", 0.0)
    monkeypatch.setattr("octavo.engine.restart_limits.SECOND_PAUSE_S", 0.01)
    engine = await make_engine(Slow, MortalCore, core_stall_timeout=1)
    core = engine._core._core
    assert isinstance(core, MortalCore)
    core.kill()
    async with asyncio.timeout(20):
        while Slow.num_made < 3 or engine._core.is_down:
            await asyncio.sleep(0.01)
    assert Slow.is_killed.is_set()
    await engine.check_health()
    await engine.shutdown()
