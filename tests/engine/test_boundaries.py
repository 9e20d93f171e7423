"""Errors of our own on the way back from the core: one request's, or nobody's, and never a silent end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from octavo import EngineError, SamplingParams
from octavo.base.errors import ErrorCode, OctavoError
from octavo.engine import sample
from octavo.engine.async_llm import AsyncLLM
from octavo.engine.usage import Used

GREEDY = SamplingParams(temperature=0.0, seed=1, max_tokens=12, ignore_eos=True)
WITH_LOGPROBS = SamplingParams(temperature=0.0, seed=1, max_tokens=12, ignore_eos=True, logprobs=1)


async def tokens(engine: AsyncLLM, params: SamplingParams, length: int = 9) -> list[int]:
    outputs = [output async for output in engine.generate([1] * length, params)]
    found: list[int] = outputs[-1].outputs[0].token_ids
    return found


def fails(*_: Any, **__: Any) -> Any:
    raise ValueError("secret text")


def fails_third_time() -> Callable[..., Any]:
    calls = 0

    def call(*_: Any, **__: Any) -> Any:
        nonlocal calls
        calls += 1
        return fails() if calls == 3 else sample.LogprobsOnePosition()

    return call


@pytest.mark.parametrize("how", [fails, fails_third_time()])
async def test_an_answer_that_cannot_be_put_into_words_fails_alone(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: Any
) -> None:
    monkeypatch.setattr(sample, "logprobs_at", how)
    engine = await make_engine()
    good = [asyncio.create_task(tokens(engine, GREEDY, n)) for n in (5, 20)]
    with pytest.raises(EngineError) as caught:
        await asyncio.wait_for(tokens(engine, WITH_LOGPROBS), 10)
    assert caught.value.code is ErrorCode.INTERNAL and "secret" not in caught.value.message
    assert [len(await asyncio.wait_for(one, 10)) for one in good] == [12, 12]
    assert len(await asyncio.wait_for(tokens(engine, GREEDY), 10)) == 12
    assert not engine.open_request_ids()
    await engine.check_health()
    await engine.shutdown()
    assert "secret text" in caplog.text, "the log says more than the client was told"


class BrokenListener:
    begun = ended = held = __call__ = fails


async def test_listeners_that_fail_cost_nobody_an_answer(
    make_engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await make_engine()
    heard: list[tuple[str, Used]] = []

    class Listener:
        def begun(self, tenant: str, num_prompt_tokens: int) -> None: ...

        def ended(self, tenant: str, used: Used) -> None:
            heard.append((tenant, used))

        def held(self, tenant: str, block_seconds: float) -> None: ...

    engine.add_stats_listener(BrokenListener())
    engine.add_usage_listener(BrokenListener())
    engine.add_usage_listener(Listener())
    assert len(await asyncio.wait_for(tokens(engine, GREEDY), 10)) == 12
    assert len(heard) == 1 and not engine.open_request_ids()
    await asyncio.wait_for(engine.drain(5), 10)
    await engine.shutdown()
    assert "secret text" in caplog.text


async def test_whatever_else_breaks_ends_the_engine_and_says_so(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better than to go on with an engine whose answers nobody takes any more."""
    engine = await make_engine()
    monkeypatch.setattr(engine._streams._processor, "process", fails)
    with pytest.raises(EngineError):
        await asyncio.wait_for(tokens(engine, GREEDY), 10)
    failure: OctavoError = await asyncio.wait_for(engine.failed(), 10)
    assert "secret" not in failure.message
    with pytest.raises(EngineError):
        await engine.check_health()
    await engine.shutdown()
