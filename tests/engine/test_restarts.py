"""Cores that die or get stuck under AsyncLLM, over the fake executor: what their requests see of it."""

from __future__ import annotations

import asyncio
import errno
import threading
from typing import Any

import pytest

from octavo import EngineError, RequestOutputKind, SamplingParams
from octavo.base.errors import ErrorCode
from octavo.engine import restart_limits, stall_watch, supervised_core
from octavo.engine.core_thread import ThreadCore
from octavo.engine.prepare import derive_key
from octavo.engine.restart_limits import RestartLimits
from octavo.executor.fake import FakeExecutor, expected_tokens
from octavo.messages.start import CoreReady, StartCore
from octavo.messages.step import SchedulerOutput
from octavo.messages.wire import CoreFailed
from tests.tiny import VOCAB_SIZE

PROMPT = list(range(40))


class MortalCore(ThreadCore):
    """A core that can be killed: as far as anybody sees, it runs in a process of its own."""

    is_same_process = False

    def kill(self, message: str = "killed") -> None:
        self._report(CoreFailed(error="EngineError", code="ENGINE_FAILED", message=message))

    async def end_stuck(self) -> bool:
        Executor.is_free.set()
        self.kill("stuck")
        return True


class Executor(FakeExecutor):
    """Slow enough for a test to meet it at work. All cores of a test share what is told here."""

    is_free = threading.Event()
    num_made = 0

    def __init__(self) -> None:
        super().__init__(vocab_size=VOCAB_SIZE, step_seconds=0.002, fail=self._wait)
        type(self).num_made += 1

    def _wait(self, step: SchedulerOutput) -> dict[int, str]:
        self.is_free.wait(20)
        return {}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_limits, "SECOND_PAUSE_S", 0.01)
    Executor.is_free.set()
    Executor.num_made = 0


def params(seed: int, max_tokens: int = 40, **values: Any) -> SamplingParams:
    return SamplingParams(seed=seed, max_tokens=max_tokens, ignore_eos=True, **values)


def expected(prompt: list[int], seed: int, count: int) -> list[int]:
    return expected_tokens(prompt, count, key=derive_key(seed, 0), vocab_size=VOCAB_SIZE)


def core_of(engine: Any) -> MortalCore:
    core = engine._core._core
    assert isinstance(core, MortalCore)
    return core


async def collect(engine: Any, prompt: list[int], sampling: SamplingParams) -> list[Any]:
    return [output async for output in engine.generate(prompt, sampling)]


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


async def test_streams_go_on_behind_their_tokens(make_engine: Any) -> None:
    engine = await make_engine(Executor, MortalCore)
    sampling = params(5, logprobs=2, output_kind=RequestOutputKind.DELTA)
    stream = engine.generate(PROMPT, sampling)
    parts = [await anext(stream), await anext(stream)]
    core_of(engine).kill()
    parts += [part async for part in stream]
    tokens = [token for part in parts for token in part.outputs[0].token_ids]
    assert tokens == expected(PROMPT, 5, 40)
    assert sum(len(part.outputs[0].logprobs) for part in parts) == 40
    assert parts[-1].outputs[0].finish_reason == "length" and Executor.num_made == 2
    assert parts[-1].num_cached_tokens <= len(PROMPT)
    await engine.shutdown()


async def test_a_core_that_has_just_been_started_again_is_empty(make_engine: Any) -> None:
    engine = await make_engine(Executor, MortalCore)
    core_of(engine).kill()
    await until(lambda: engine.stats().core_restarts == 1)
    assert engine.stats().kv_usage == 0.0
    await engine.shutdown()


async def test_waiting_and_running_ones_all_end_right_with_all_their_samples(make_engine: Any) -> None:
    engine = await make_engine(Executor, MortalCore, max_num_seqs=2)
    calls = [
        asyncio.create_task(collect(engine, PROMPT[: n + 1], params(n, n=2, prompt_logprobs=1)))
        for n in range(8)
    ]
    for _ in range(2):
        before = engine.stats().generation_tokens
        await until(lambda before=before: engine.stats().generation_tokens > before + 20)
        core_of(engine).kill()
    for n, outputs in enumerate(await asyncio.gather(*calls)):
        for index, sample in enumerate(outputs[-1].outputs):
            key = derive_key(n, index)
            assert sample.token_ids == expected_tokens(PROMPT[: n + 1], 40, key=key, vocab_size=VOCAB_SIZE)
        assert len(outputs[-1].prompt_logprobs) == n + 1
    assert engine.stats().core_restarts == 2
    assert engine.stats().generation_tokens >= 8 * 2 * 40 - 2 * 2 * 2, "counted across cores"
    await until(lambda: engine.stats().num_free_blocks == engine.stats().num_blocks)
    await engine.shutdown()


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_request_that_kills_every_core_fails_and_those_beside_it_do_not(
    make_engine: Any, is_first: bool
) -> None:
    """It kills from its 20th token on. Two more are there each time, and one comes in late."""
    engine = await make_engine(Executor, MortalCore)
    victims = [asyncio.create_task(collect(engine, PROMPT[:n], params(n, 300))) for n in (5, 6)]
    await asyncio.sleep(0 if is_first else 0.02)
    num_killed = 0
    with pytest.raises(EngineError) as caught:
        async for output in engine.generate(PROMPT, params(1, 400)):
            if engine._core.is_down:
                continue
            if len(output.outputs[0].token_ids) >= 20:
                core_of(engine).kill()
                num_killed += 1
                if num_killed == 2:
                    victims.append(asyncio.create_task(collect(engine, PROMPT[:7], params(7, 300))))
    assert caught.value.code is ErrorCode.ENGINE_RESTARTED and num_killed == 3
    for n, outputs in zip((5, 6, 7), await asyncio.gather(*victims), strict=True):
        assert outputs[-1].outputs[0].token_ids == expected(PROMPT[:n], n, 300)
    await until(lambda: engine.stats().num_free_blocks == engine.stats().num_blocks)
    await engine.shutdown()


async def test_suspects_are_tried_one_by_one_and_can_leave(make_engine: Any) -> None:
    engine = await make_engine(Executor, MortalCore)
    calls = [asyncio.create_task(collect(engine, PROMPT[: n + 1], params(n, 200))) for n in range(4)]
    for _ in range(2):
        before = engine.stats().generation_tokens
        await until(lambda before=before: engine.stats().generation_tokens > before + 8)
        core_of(engine).kill()
        while not engine._core.is_down:
            await asyncio.sleep(0)
    await until(lambda: engine._streams._resumption.is_careful)
    held = [stream for stream in engine._streams if engine._streams._resumption.is_held(stream)]
    assert len(held) == 3, "one is tried"
    calls[0].cancel()  # That one.
    await engine.abort(held[1].state.prepared.request_id)
    (_, *outputs) = await asyncio.gather(*calls, return_exceptions=True)
    assert [output[-1].outputs[0].finish_reason for output in outputs] == ["length", "abort", "length"]
    for n in (1, 3):
        assert outputs[n - 1][-1].outputs[0].token_ids == expected(PROMPT[: n + 1], n, 200)
    assert not engine._streams._resumption.is_careful
    await engine.shutdown()


async def test_what_is_aborted_while_there_is_no_core_stays_aborted(make_engine: Any) -> None:
    engine = await make_engine(Executor, MortalCore)
    reason = None
    async for output in engine.generate(PROMPT, params(1, 400), request_id="mine"):
        if reason is None:
            core_of(engine).kill()
            await engine.abort("mine")
        reason = output.outputs[0].finish_reason or ""
    assert reason == "abort"
    await engine.shutdown()


async def test_orders_do_not_wait_for_the_next_core_and_sleep_goes_on_in_it(make_engine: Any) -> None:
    engine = await make_engine(Executor, MortalCore)
    await engine.sleep(1)
    core_of(engine).kill()
    while not engine._core.is_down:
        await asyncio.sleep(0)
    with pytest.raises(EngineError, match="restarted"):
        await engine.reset_prefix_cache()
    await until(lambda: not engine._core.is_down)
    assert await engine.is_sleeping()
    await engine.wake_up()
    (*_, last) = await collect(engine, PROMPT, params(3))
    assert last.outputs[0].token_ids == expected(PROMPT, 3, 40)
    await engine.shutdown()


async def test_the_next_core_logs_as_much_as_the_one_before(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wants to know why cores die has just asked for more."""
    for place in ("async_llm", "core_orders"):  # The loggers of these tests stay as they are.
        monkeypatch.setattr(f"octavo.engine.{place}.set_log_level", lambda _: None)
    levels = []

    class Core(MortalCore):
        async def start(self, start: StartCore) -> CoreReady:
            levels.append(start.config.observe.log_level)
            return await super().start(start)

    engine = await make_engine(Executor, Core)
    await engine.set_log_level("ERROR")
    core_of(engine).kill()
    await until(lambda: engine.stats().core_restarts == 1 and not engine._core.is_down)
    assert levels == [None, "ERROR"]
    await engine.shutdown()


async def test_a_core_is_tried_again_when_the_machine_had_no_room_for_its_files(make_engine: Any) -> None:
    num_made = 0

    class Core(MortalCore):
        def __init__(self, starts_core: Any) -> None:
            nonlocal num_made
            num_made += 1
            if num_made == 2:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().__init__(starts_core)

    engine = await make_engine(Executor, Core)
    call = asyncio.create_task(collect(engine, PROMPT, params(3)))
    await until(lambda: engine.stats().generation_tokens > 3)
    core_of(engine).kill()
    (*_, last) = await call
    assert last.outputs[0].token_ids == expected(PROMPT, 3, 40) and num_made == 3
    await engine.shutdown()


async def test_an_engine_gives_up_with_the_cause(make_engine: Any) -> None:
    engine = await make_engine(Executor, MortalCore, max_core_restarts=1)
    call = asyncio.create_task(collect(engine, PROMPT, params(1, 400)))
    await until(lambda: engine.stats().generation_tokens > 5)
    core_of(engine).kill("first")
    await until(lambda: Executor.num_made == 2 and not engine._core.is_down)
    core_of(engine).kill("the very cause")
    with pytest.raises(EngineError, match="not started again: the very cause"):
        await call
    assert "the very cause" in (await engine.failed()).message
    with pytest.raises(EngineError):
        engine.check_welcome()
    await engine.shutdown()


async def test_a_stuck_core_is_no_longer_ready_then_replaced(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stall_watch, "ALARM_S", 0.3)
    monkeypatch.setattr(supervised_core, "TICK_S", 0.02)
    monkeypatch.setattr(supervised_core, "PING_S", 0.04)
    engine = await make_engine(Executor, MortalCore, core_stall_timeout=1.5)
    stream = engine.generate(PROMPT, params(4))
    await anext(stream)
    await engine.check_health()
    Executor.is_free.clear()

    async def is_ill() -> bool:
        try:
            await engine.check_health()
        except EngineError:
            return True
        return False

    while not await is_ill():
        await asyncio.sleep(0.01)
    assert Executor.num_made == 1, "told before anything is done about it"
    outputs = [output async for output in stream]
    assert outputs[-1].outputs[0].token_ids == expected(PROMPT, 4, 40)
    assert Executor.num_made == 2 and not await is_ill()
    await engine.shutdown()


async def test_an_engine_can_be_ended_while_it_starts_its_next_core(make_engine: Any) -> None:
    engine = await make_engine(Executor, MortalCore)
    call = asyncio.create_task(collect(engine, PROMPT, params(1, 400)))
    await until(lambda: engine.stats().generation_tokens > 5)
    core_of(engine).kill()
    while not engine._core.is_down:
        await asyncio.sleep(0)
    await engine.shutdown()
    with pytest.raises(EngineError) as caught:
        await call
    assert caught.value.code is ErrorCode.SHUTTING_DOWN


def test_restarts_are_counted_over_a_window() -> None:
    limits = RestartLimits(4, 100.0)
    assert [limits.next_pause(now) for now in (0, 1, 2, 3, 4)] == [0.0, 0.01, 0.02, 0.04, None]
    assert limits.next_pause(101.5) == 0.02, "two of them are too long ago"
    assert RestartLimits(0, 1.0).next_pause(0.0) is None
