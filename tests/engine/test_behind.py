"""A consumer that is behind gets what has come for it as one output; nothing is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from octavo import RequestOutputKind, SamplingParams
from octavo.engine.core_thread import ThreadCore
from octavo.executor.fake import FakeExecutor
from octavo.messages.result import CoreStats
from octavo.messages.wire import CoreUpdate
from tests.tiny import VOCAB_SIZE

PROMPT = list(range(40))


def delta_params(**values: Any) -> SamplingParams:
    return SamplingParams(
        temperature=0.0,
        seed=1,
        max_tokens=60,
        ignore_eos=True,
        output_kind=RequestOutputKind.DELTA,
        **values,
    )


@pytest.mark.parametrize("values", [{}, {"logprobs": 1}, {"stop": "never there"}, {"n": 2}])
async def test_several_tokens_become_one_output(make_engine: Any, values: dict[str, Any]) -> None:
    engine = await make_engine()
    prompt = [number + 50 for number in PROMPT]
    whole = [o async for o in engine.generate(prompt, delta_params(**values))]
    parts = []
    async for output in engine.generate(prompt, delta_params(**values)):
        parts.append(output)
        await asyncio.sleep(0.02)  # The fake core makes many tokens meanwhile.
    await engine.shutdown()
    assert len(parts) < 20
    for index in range(values.get("n", 1)):
        slow, quick = (
            [p for o in outputs for p in o.outputs if p.index == index] for outputs in (parts, whole)
        )
        assert "".join(p.text for p in slow) == "".join(p.text for p in quick)
        assert [t for p in slow for t in p.token_ids] == [t for p in quick for t in p.token_ids]
        assert slow[-1].finish_reason == "length"
        if "logprobs" in values:
            assert all(len(p.logprobs) == len(p.token_ids) for p in slow)


async def test_all_reports_that_are_there_are_taken_at_once() -> None:
    core = ThreadCore(lambda start: None)  # type: ignore[arg-type, return-value]
    core._loop = asyncio.get_running_loop()
    for number in range(3):
        core._report(CoreUpdate(deltas=[], stats=CoreStats(steps=number)))
    await asyncio.sleep(0.01)
    assert [message.stats.steps for message in await core.receive()] == [0, 1, 2]  # type: ignore[union-attr]


async def test_overlapping_steps_give_the_same_answers(make_engine: Any) -> None:
    params = SamplingParams(temperature=0.0, seed=1, max_tokens=60)

    async def answers(is_overlapping: bool) -> list[tuple[list[int], str | None]]:
        executor = FakeExecutor(vocab_size=VOCAB_SIZE, eos_probability=0.02, eos_token_id=258)
        engine = await make_engine(executor, async_scheduling=is_overlapping)

        async def answer(length: int) -> tuple[list[int], str | None]:
            last = [output async for output in engine.generate(PROMPT[:length], params)][-1].outputs[0]
            return last.token_ids, last.finish_reason

        found = await asyncio.gather(*(answer(length) for length in range(1, 40)))
        await engine.shutdown()
        return found

    one_by_one = await answers(is_overlapping=False)
    assert {reason for _, reason in one_by_one} == {"stop", "length"}
    assert await answers(is_overlapping=True) == one_by_one
