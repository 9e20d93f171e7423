"""AsyncLLM at rest: who is refused, who may finish, and that nobody waits for an answer that never comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from octavo import EngineError, RequestError, SamplingParams
from octavo.base.errors import ErrorCode
from octavo.engine.async_llm import AsyncLLM
from octavo.executor.fake import FakeExecutor
from octavo.messages.beam import BeamSearchParams
from tests.tiny import VOCAB_SIZE

PROMPT = list(range(40))


def params(max_tokens: int = 12) -> SamplingParams:
    return SamplingParams(temperature=0.0, seed=1, max_tokens=max_tokens, ignore_eos=True)


async def answer(engine: AsyncLLM, max_tokens: int = 12) -> Any:
    last = None
    async for output in engine.generate(PROMPT, params(max_tokens)):
        last = output
    assert last is not None
    return last.outputs[0]


async def all_of(outputs: AsyncIterator[Any]) -> list[Any]:
    return [output async for output in outputs]


async def test_the_same_tokens_after_sleep(make_engine: Any) -> None:
    engine = await make_engine(async_scheduling=True)
    before = await answer(engine)
    for level in (1, 2):
        await engine.sleep(level)
        assert await engine.is_sleeping()
        with pytest.raises(EngineError) as caught:
            engine.generate(PROMPT, params())
        assert caught.value.code is ErrorCode.ASLEEP
        await engine.wake_up()
        assert (await answer(engine)).token_ids == before.token_ids
    assert engine.stats().num_running == 0
    with pytest.raises(RequestError, match="level"):
        await engine.sleep(0)
    with pytest.raises(RequestError, match="mode"):
        await engine.sleep(1, "now")
    await engine.shutdown()


async def test_who_gives_up_on_a_sleep_or_a_wake_up_leaves_no_doubt_about_it(make_engine: Any) -> None:
    """Cancelled when the order is on its way already: it is carried out all the same."""
    engine = await make_engine()
    before = await answer(engine)
    for wish, is_asleep in ((engine.sleep(), True), (engine.wake_up(), False)):
        task = asyncio.create_task(wish)
        while not engine._orders._waiting:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await engine.is_sleeping() == is_asleep
    assert (await answer(engine)).token_ids == before.token_ids
    await engine.shutdown()


async def test_running_requests_finish_first(make_engine: Any) -> None:
    engine = await make_engine()
    running = asyncio.create_task(answer(engine, 300))
    await asyncio.sleep(0.01)
    late = engine.generate(PROMPT, params())
    await engine.sleep()
    assert running.done() and len((await running).token_ids) == 300
    with pytest.raises(EngineError) as caught:
        await anext(late)
    assert caught.value.code is ErrorCode.ASLEEP
    await engine.shutdown()


async def test_or_are_ended(make_engine: Any) -> None:
    # Slow enough that nobody ends by itself meanwhile.
    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.01))
    running = [asyncio.create_task(answer(engine, 400)) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert len(engine.open_request_ids()) == 5
    await engine.sleep(1, "abort")
    ended = await asyncio.gather(*running)
    assert {output.finish_reason for output in ended} == {"abort"}
    await engine.wake_up()
    assert len((await answer(engine)).token_ids) == 12
    assert engine.open_request_ids() == []
    await engine.shutdown()


@pytest.mark.parametrize("rests", ["pause", "sleep"])
async def test_a_search_that_runs_finishes_first_as_well(make_engine: Any, rests: str) -> None:
    """It is open between its steps, too, and each step is a request of its own."""
    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.002))
    search = engine.beam_search(PROMPT, BeamSearchParams(beam_width=2, max_tokens=12, ignore_eos=True))
    running = asyncio.create_task(all_of(search))
    while not engine.stats().generation_tokens:
        await asyncio.sleep(0.001)
    late = engine.beam_search(PROMPT, BeamSearchParams(beam_width=2, max_tokens=2))
    await (engine.rest.pause("wait") if rests == "pause" else engine.sleep())
    assert running.done()
    assert [len(beam.token_ids) for beam in (await running)[0].outputs] == [12, 12]
    with pytest.raises(EngineError) as caught:
        await anext(late)
    assert caught.value.code in (ErrorCode.PAUSED, ErrorCode.ASLEEP)
    await engine.shutdown()


async def test_pause(make_engine: Any) -> None:
    engine = await make_engine()
    running = asyncio.create_task(answer(engine, 200))
    await asyncio.sleep(0.01)
    await engine.rest.pause("wait")
    assert running.done()
    with pytest.raises(EngineError) as caught:
        engine.generate(PROMPT, params())
    assert caught.value.code is ErrorCode.PAUSED
    await engine.sleep()
    await engine.wake_up()
    with pytest.raises(EngineError):
        engine.generate(PROMPT, params())
    engine.rest.resume()
    await answer(engine)
    await engine.shutdown()


async def test_orders_are_answered_in_turn_and_failures_stay_with_their_caller(make_engine: Any) -> None:
    engine = await make_engine()
    results = await asyncio.gather(
        engine.reset_prefix_cache(),
        engine.start_profile(),
        engine.set_log_level("INFO"),
        engine.stop_profile("nowhere"),
        engine.reset_prefix_cache(),
        return_exceptions=True,
    )
    assert results[0] is True and results[2] is None and results[4] is True
    assert isinstance(results[1], EngineError) and "no profiler" in results[1].message
    assert isinstance(results[3], EngineError)
    await answer(engine)
    await engine.shutdown()
    with pytest.raises(EngineError) as caught:
        await engine.sleep()
    assert caught.value.code is ErrorCode.SHUTTING_DOWN


async def test_a_caller_that_leaves_does_not_disturb_the_others(make_engine: Any) -> None:
    engine = await make_engine()
    leaving = asyncio.create_task(engine.reset_prefix_cache())
    staying = asyncio.create_task(engine.reset_prefix_cache())
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying
    await answer(engine)
    await engine.shutdown()
