"""Samples of one request: one message, and one prompt in the core, however many they are."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from octavo import SamplingParams
from octavo.messages.request import EngineRequest, Samples, together
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
