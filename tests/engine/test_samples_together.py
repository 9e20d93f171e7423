"""Samples of one request: one message, and one prompt in the core, however many they are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from octavo import RequestOutputKind, SamplingParams
from octavo.engine.request_state import PreparedRequest
from octavo.messages.request import EngineRequest, Samples, together
from octavo.messages.result import RequestDelta, Timing, TokenLogprobs
from octavo.messages.wire import ToCore

PROMPT = list(range(200))


def sample(number: int) -> EngineRequest:
    return EngineRequest(
        request_id=f"r-{number}",
        prompt_token_ids=PROMPT,
        params=SamplingParams(max_tokens=5, allowed_token_ids=PROMPT),
        max_tokens=5,
        eos_token_ids=[],
        random_key=2**64 - 1 - number,
        arrival_time=1.0,
    )


def test_they_come_apart_as_they_were_and_share_what_is_long() -> None:
    samples = [sample(number) for number in range(128)]
    frame = msgspec.msgpack.encode(together(samples))
    message = msgspec.msgpack.decode(frame, type=ToCore)
    assert isinstance(message, Samples)
    found = message.apart()
    assert found == samples
    assert all(one.prompt_token_ids is found[0].prompt_token_ids for one in found)
    assert all(one.params is found[0].params for one in found)
    assert len(frame) < 3 * len(msgspec.msgpack.encode(samples[0])) + 128 * 20
    assert together(samples[:1]) is samples[0]


async def test_an_engine_sends_one_message(make_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await make_engine()
    sent: list[Any] = []
    send = engine._core.send
    monkeypatch.setattr(engine._core, "send", lambda message: (sent.append(message), send(message)))
    params = SamplingParams(n=3, seed=1, max_tokens=4, ignore_eos=True)
    outputs = [output async for output in engine.generate([1, 2, 3], params)]
    assert len(sent) == 1 and len(outputs[-1].outputs) == 3
    assert all(len(part.token_ids) == 4 for part in outputs[-1].outputs)
    await engine.shutdown()


async def test_the_first_sample_alone_reports_on_the_prompt(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With n=128 the prompt was computed anew and reported on 128 times, for one answer to show."""
    engine = await make_engine(max_num_seqs=2)
    sent: list[Any] = []
    send = engine._core.send
    monkeypatch.setattr(engine._core, "send", lambda message: (sent.append(message), send(message)))
    params = SamplingParams(n=4, seed=1, max_tokens=4, ignore_eos=True, prompt_logprobs=2)
    outputs = [output async for output in engine.generate(PROMPT[:40], params)]
    assert len(outputs[-1].prompt_logprobs) == 40
    assert all(len(part.token_ids) == 4 for part in outputs[-1].outputs)
    wishes = [one.params.prompt_logprobs for one in sent[0].apart()]
    assert wishes == [2, None, None, None]
    await engine.shutdown()


def test_nothing_is_told_before_what_is_to_be_told_of_the_prompt(tokenizer: Any) -> None:
    """Who echoes a prompt says its log-probabilities first, whichever sample has the first token."""
    params = SamplingParams(n=2, max_tokens=9, prompt_logprobs=0, output_kind=RequestOutputKind.DELTA)
    samples = Samples(msgspec.structs.replace(sample(0), params=params), [("r-1", 1)]).apart()
    state = PreparedRequest(
        request_id="r", prompt=None, prompt_token_ids=[1, 2], params=params, samples=samples, stops=None
    ).open(tokenizer)
    state.add(1, RequestDelta(request_id="r-1", token_ids=[5], timing=Timing(arrival=0.0)), 1.0)
    assert state.take_output() is None
    told = [TokenLogprobs([2], [-0.5], 1)]
    state.add(
        0,
        RequestDelta(request_id="r-0", token_ids=[6], timing=Timing(arrival=0.0), prompt_logprobs=told),
        1.0,
    )
    output = state.take_output()
    assert output is not None and output.prompt_logprobs is not None
    assert [part.token_ids for part in output.outputs] == [[6], [5]]
