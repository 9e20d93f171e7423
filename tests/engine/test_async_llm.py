"""AsyncLLM over the fake executor: streaming, aborting, failing, draining."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from octavo import EngineError, RequestError, RequestOutputKind, SamplingParams
from octavo.base.clock import monotonic
from octavo.base.errors import ErrorCode
from octavo.engine.async_llm import AsyncLLM
from octavo.engine.prepare import derive_key
from octavo.engine.usage import Used
from octavo.executor.fake import FakeExecutor, expected_tokens
from octavo.messages.beam import BeamSearchParams
from octavo.messages.request import Terms
from tests.tiny import VOCAB_SIZE

PROMPT = list(range(40))


def params(**values: Any) -> SamplingParams:
    # The fake model's answer depends on the sample's key, so a seed makes it repeatable.
    return SamplingParams(**{"temperature": 0.0, "seed": 1, "max_tokens": 12, "ignore_eos": True, **values})


async def collect(engine: AsyncLLM, prompt: Any, sampling: SamplingParams, **extras: Any) -> list[Any]:
    return [output async for output in engine.generate(prompt, sampling, **extras)]


async def all_blocks_free(engine: AsyncLLM) -> bool:
    """Wait until the core reports that nobody holds a block."""
    for _ in range(200):
        stats = engine.stats()
        if stats.num_running == 0 and stats.num_waiting == 0 and stats.kv_usage < 0.005:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_an_engine_that_has_done_nothing_says_that_it_is_empty(make_engine: Any) -> None:
    engine = await make_engine()
    before = engine.stats()
    assert before.kv_usage == 0.0
    await collect(engine, PROMPT, params())
    assert engine.stats().num_blocks == before.num_blocks
    await engine.shutdown()


async def test_deltas_add_up_to_the_cumulative_output(make_engine: Any) -> None:
    engine = await make_engine()
    whole = (await collect(engine, PROMPT, params()))[-1].outputs[0]
    parts = await collect(engine, PROMPT, params(output_kind=RequestOutputKind.DELTA))
    await engine.shutdown()
    assert [t for part in parts for t in part.outputs[0].token_ids] == whole.token_ids
    assert "".join(part.outputs[0].text for part in parts) == whole.text
    assert [part.finished for part in parts].count(True) == 1
    assert whole.finish_reason == "length"


async def test_tokens_are_those_of_the_fake_model(make_engine: Any) -> None:
    engine = await make_engine()
    final = params(output_kind=RequestOutputKind.FINAL_ONLY, seed=5)
    outputs = await asyncio.gather(*(collect(engine, PROMPT[:n], final) for n in range(1, 30)))
    await engine.shutdown()
    for n, (output,) in enumerate(outputs, start=1):
        expected = expected_tokens(PROMPT[:n], 12, key=derive_key(5, 0), vocab_size=VOCAB_SIZE)
        assert output.outputs[0].token_ids == expected


async def test_n_samples_of_one_request(make_engine: Any) -> None:
    engine = await make_engine()
    last = (await collect(engine, PROMPT, params(n=3)))[-1]
    await engine.shutdown()
    assert [output.index for output in last.outputs] == [0, 1, 2]
    assert all(len(output.token_ids) == 12 for output in last.outputs)
    assert last.metrics.num_output_tokens == 36


async def test_closing_the_iterator_frees_everything(make_engine: Any) -> None:
    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.002))
    stream = engine.generate(PROMPT, params(max_tokens=400))
    await anext(stream)
    await stream.aclose()
    assert await all_blocks_free(engine)
    await engine.shutdown()


async def test_abort_by_id_ends_the_stream(make_engine: Any) -> None:
    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.002))
    reason = None
    async for output in engine.generate(PROMPT, params(max_tokens=400), request_id="mine"):
        await engine.abort("mine")
        reason = output.outputs[0].finish_reason
    assert reason == "abort"
    assert await all_blocks_free(engine)
    await engine.shutdown()


@pytest.mark.parametrize(
    ("prompt", "values", "param"),
    [
        ([], {}, "prompt"),
        ([VOCAB_SIZE], {}, "prompt"),
        ([-1], {}, "prompt"),
        (PROMPT, {"max_tokens": 0}, "max_tokens"),
        (PROMPT, {"max_tokens": 5000}, "max_tokens"),
        (list(range(200)) * 3, {}, "prompt"),
        (PROMPT, {"temperature": float("nan")}, "temperature"),
        (PROMPT, {"min_tokens": 20}, "min_tokens"),
        (PROMPT, {"max_tokens": None, "min_tokens": 500}, "min_tokens"),
        (PROMPT, {"allowed_token_ids": [VOCAB_SIZE]}, "allowed_token_ids"),
        (PROMPT, {"n": 0}, "n"),
    ],
)
async def test_wrong_requests_are_refused_at_the_call(
    make_engine: Any, prompt: list[int], values: dict[str, Any], param: str
) -> None:
    engine = await make_engine()
    with pytest.raises(RequestError) as caught:
        engine.generate(prompt, params(**values))
    assert caught.value.param == param
    assert len(await collect(engine, PROMPT, params())) > 0  # and it still serves
    await engine.shutdown()


async def test_the_queue_is_bounded(make_engine: Any) -> None:
    executor = FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.005)
    engine = await make_engine(executor, max_num_seqs=1, max_num_queued_reqs=1)
    streams = [engine.generate(PROMPT, params(max_tokens=400)) for _ in range(2)]
    for stream in streams[:1]:
        await anext(stream)
    waiting = asyncio.ensure_future(anext(streams[1]))
    await asyncio.sleep(0.02)
    with pytest.raises(EngineError) as caught:
        engine.generate(PROMPT, params())
    assert caught.value.code is ErrorCode.OVERLOADED
    waiting.cancel()
    await engine.shutdown()


async def test_who_is_admitted_counts_at_once_and_no_longer_than_it_is_there(make_engine: Any) -> None:
    """A burst of requests was let in whole: each was asked about before any of the others had begun."""
    executor = FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.005)
    engine = await make_engine(executor, max_num_seqs=1, max_num_queued_reqs=2)
    some = params(max_tokens=20)
    admitted = []
    with pytest.raises(EngineError) as caught:
        for _ in range(50):
            admitted.append(engine.generate(PROMPT, some))
    assert caught.value.code is ErrorCode.OVERLOADED and len(admitted) == 3
    await admitted.pop().aclose()  # Before its first step,
    admitted.append(engine.generate(PROMPT, some))
    del admitted[0]  # or dropped,
    await asyncio.sleep(0)
    task = asyncio.create_task(collect(engine, PROMPT, some))
    task.cancel()  # or never asked for at all,
    await asyncio.gather(task, return_exceptions=True)
    step = asyncio.ensure_future(anext(admitted[-1]))
    step.cancel()  # or left before its first step has begun,
    await asyncio.gather(step, return_exceptions=True)
    await admitted.pop().aclose()
    admitted.append(engine.generate(PROMPT, some))
    admitted.append(engine.generate(PROMPT, some))
    engine.rest.is_paused = True
    with pytest.raises(EngineError):
        await anext(admitted.pop())  # or refused with its first step.
    engine.rest.resume()
    admitted.append(engine.generate(PROMPT, some))
    with pytest.raises(EngineError):
        engine.generate(PROMPT, some)
    # Who asked for several together is not asked again about each.
    admitted.append(engine.generate(PROMPT, some, has_room=True))
    await asyncio.gather(*(anext(stream) for stream in admitted))
    for stream in admitted:
        await stream.aclose()
    assert engine._bound.num_waiting == 0 and engine._bound._total.requests == 0
    await engine.shutdown()


async def test_a_search_that_is_admitted_counts_as_its_beams(make_engine: Any) -> None:
    engine = await make_engine(max_num_seqs=1, max_num_queued_reqs=3)
    search = BeamSearchParams(beam_width=2, max_tokens=3)
    admitted = [engine.beam_search(PROMPT, search), engine.beam_search(PROMPT, search)]
    with pytest.raises(EngineError) as caught:
        engine.beam_search(PROMPT, search)
    assert caught.value.code is ErrorCode.OVERLOADED
    await admitted.pop().aclose()
    admitted.append(engine.beam_search(PROMPT, search))
    for stream in admitted:
        assert [output.finished async for output in stream] == [True]
    assert engine._bound.num_waiting == 0 and engine._bound._total.requests == 0
    await engine.shutdown()


def test_a_stream_may_be_asked_for_outside_the_loop(make_engine: Any) -> None:
    """As in `loop.run_until_complete(collect(engine.generate(...)))`: it raised, and the request stayed."""

    async def last_of(stream: Any) -> Any:
        return [output async for output in stream][-1]

    with asyncio.Runner() as runner:
        engine = runner.run(make_engine())
        stream = engine.generate(PROMPT, params())
        assert runner.run(last_of(stream)).finished
        assert engine._bound._total.requests == 0
        runner.run(engine.shutdown())


async def test_a_deadline_ends_the_stream_with_its_code(make_engine: Any) -> None:
    executor = FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.005)
    engine = await make_engine(executor, max_num_seqs=1)
    tokens = 0
    with pytest.raises(EngineError) as caught:
        async for output in engine.generate(
            PROMPT, params(max_tokens=400), terms=Terms(deadline=monotonic() + 0.2)
        ):
            tokens = len(output.outputs[0].token_ids)
    assert caught.value.code is ErrorCode.DEADLINE_EXCEEDED and 0 < tokens < 400
    assert await all_blocks_free(engine) and len(await collect(engine, PROMPT, params())) > 0
    await engine.shutdown()


async def test_what_would_wait_too_long_is_refused_at_the_call(make_engine: Any) -> None:
    executor = FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.005)
    engine = await make_engine(executor, max_num_seqs=1, max_num_queued_tokens=2 * len(PROMPT))
    streams = [engine.generate(PROMPT, params(max_tokens=400))]
    await anext(streams[0])
    streams += [engine.generate(PROMPT, params(max_tokens=400)) for _ in range(2)]
    waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
    with pytest.raises(EngineError) as caught:
        engine.generate(PROMPT, params())
    assert caught.value.code is ErrorCode.OVERLOADED and "80 prompt tokens wait" in caught.value.message
    for task in waiting:
        task.cancel()
    await engine.shutdown()


async def test_who_keeps_books_hears_of_every_end(make_engine: Any) -> None:
    class Books:
        told: list[Any] = []
        held_by: dict[str, float] = {}

        def begun(self, tenant: str, num_prompt_tokens: int) -> None:
            self.told.append((tenant, num_prompt_tokens))

        def ended(self, tenant: str, used: Used) -> None:
            self.told.append((tenant, used.cached_tokens, used.output_tokens, used.seconds > 0))

        def held(self, tenant: str, block_seconds: float) -> None:
            self.held_by[tenant] = block_seconds

    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.005))
    engine.add_usage_listener(Books())
    await collect(engine, PROMPT, params(), terms=Terms("a"))
    broken_off = engine.generate(PROMPT, params(max_tokens=400), terms=Terms("b"))
    async for output in broken_off:
        if len(output.outputs[0].token_ids) > 2:
            break
    await broken_off.aclose()
    while "b" not in Books.held_by:  # The core says so when it has given the blocks back.
        await asyncio.sleep(0.001)
    await engine.shutdown()
    # Three to four blocks of 16 tokens for twelve steps of 5 ms, or more.
    assert Books.held_by["a"] > 3 * 12 * 0.005 and Books.held_by["b"] > 0
    assert Books.told[:3] == [("a", 40), ("a", 0, 12, True), ("b", 40)]
    [(tenant, cached, output_tokens, _)] = Books.told[3:]
    assert tenant == "b" and cached > 0 and 2 < output_tokens < 400


async def test_a_failed_step_fails_its_requests_and_nobody_else(make_engine: Any) -> None:
    fail = {"next": False}

    def failure(step: Any) -> dict[int, str]:
        if fail.pop("next", False):
            raise RuntimeError("the device has a bad day")
        return {}

    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, fail=failure))
    fail["next"] = True
    with pytest.raises(EngineError):
        await collect(engine, PROMPT, params())
    again = await collect(engine, PROMPT, params())
    await engine.check_health()
    assert again[-1].finished
    assert await all_blocks_free(engine)
    await engine.shutdown()


async def test_drain_waits_for_running_requests(make_engine: Any) -> None:
    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.002))
    running = asyncio.ensure_future(collect(engine, PROMPT, params(max_tokens=50)))
    await asyncio.sleep(0.02)
    await engine.drain(10.0)
    assert (await running)[-1].outputs[0].finish_reason == "length"
    await engine.shutdown()


async def test_drain_aborts_what_takes_too_long(make_engine: Any) -> None:
    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.01))
    running = asyncio.ensure_future(collect(engine, PROMPT, params(max_tokens=400)))
    await asyncio.sleep(0.05)
    await engine.drain(0.05)
    assert (await running)[-1].outputs[0].finish_reason == "abort"
    await engine.shutdown()


async def test_shutdown_ends_open_streams_with_a_typed_error(make_engine: Any) -> None:
    engine = await make_engine(FakeExecutor(vocab_size=VOCAB_SIZE, step_seconds=0.01))
    running = asyncio.ensure_future(collect(engine, PROMPT, params(max_tokens=400)))
    await asyncio.sleep(0.05)
    await engine.shutdown()
    with pytest.raises(EngineError) as caught:
        await running
    assert caught.value.code is ErrorCode.SHUTTING_DOWN
    with pytest.raises(EngineError):
        engine.generate(PROMPT, params())


async def test_prefix_hits_are_reported_and_can_be_reset(make_engine: Any) -> None:
    engine = await make_engine()
    first = (await collect(engine, PROMPT, params()))[-1]
    again = (await collect(engine, PROMPT, params()))[-1]
    salted = (await collect(engine, PROMPT, params(), cache_salt="tenant"))[-1]
    assert await engine.reset_prefix_cache()
    after = (await collect(engine, PROMPT, params()))[-1]
    await engine.shutdown()
    assert [o.num_cached_tokens for o in (first, again, salted, after)] == [0, 32, 0, 0]


async def test_what_a_sample_finds_of_another_one_is_no_hit_of_the_request(make_engine: Any) -> None:
    engine = await make_engine()
    first = (await collect(engine, PROMPT, params(n=3)))[-1]
    again = (await collect(engine, PROMPT, params(n=3)))[-1]
    await engine.shutdown()
    assert (first.num_cached_tokens, again.num_cached_tokens) == (0, 32)
