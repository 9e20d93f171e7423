"""Prompts of vectors between caller and core: read, checked, bounded, and on the wire as they were."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from octavo.base.errors import EngineError, ErrorCode, RequestError
from octavo.core.kv.prefix import root_key
from octavo.engine import prompt_vectors
from octavo.engine.prompt_vectors import LARGEST, check_vectors, vectors_from, vectors_from_file
from octavo.messages.params import SamplingParams
from octavo.messages.prompt_vectors import PromptVectors
from octavo.messages.request import EngineRequest
from octavo.messages.wire import ToCore

PARAMS = SamplingParams(max_tokens=4, temperature=0, ignore_eos=True)


def vectors(num_tokens: int = 5, width: int = 4, value: float = 0.25) -> PromptVectors:
    return vectors_from_file(save({"x": np.full((num_tokens, width), value, dtype=np.float32)}))


async def test_an_engine_answers_and_counts(make_engine: Any) -> None:
    engine = await make_engine(enable_prompt_embeds=True)
    try:
        async for output in engine.generate(vectors(), PARAMS):
            last = output
        assert len(last.outputs[0].token_ids) == 4
        assert last.prompt_token_ids == [0] * 5
        assert last.metrics.num_prompt_tokens == 5
        with pytest.raises(RequestError, match="this model's have 4"):
            engine.generate(vectors(width=5), PARAMS)
    finally:
        await engine.shutdown()


async def test_off_unless_told(make_engine: Any) -> None:
    engine = await make_engine()
    try:
        with pytest.raises(RequestError, match="--enable-prompt-embeds") as caught:
            engine.generate(vectors(), PARAMS)
        assert caught.value.code is ErrorCode.UNSUPPORTED_VALUE
    finally:
        await engine.shutdown()


async def test_what_all_requests_hold_is_bounded(make_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_vectors, "MAX_HELD_BYTES", 3 * 5 * 4 * 4)
    engine = await make_engine(enable_prompt_embeds=True)
    try:
        two = msgspec.structs.replace(PARAMS, n=2)
        stream = engine.generate(vectors(), two)
        await anext(stream)
        with pytest.raises(EngineError) as caught:
            engine.generate(vectors(), two)
        assert caught.value.code is ErrorCode.OVERLOADED
        second = engine.generate(vectors(), PARAMS)
        async for _ in second:
            pass
        await stream.aclose()
        async for _ in engine.generate(vectors(), two):
            pass
        admitted = engine.generate(vectors(), two)  # Those that have not begun hold theirs as well.
        with pytest.raises(EngineError):
            engine.generate(vectors(), two)
        await admitted.aclose()
        async for _ in engine.generate(vectors(), two):
            pass
    finally:
        await engine.shutdown()


def test_the_wire_brings_it_unchanged() -> None:
    sent = EngineRequest(
        request_id="r",
        prompt_token_ids=[0] * 5,
        params=PARAMS,
        max_tokens=4,
        eos_token_ids=[],
        random_key=1,
        arrival_time=0.0,
        prompt_vectors=vectors(),
    )
    got = msgspec.msgpack.Decoder(ToCore).decode(msgspec.msgpack.Encoder().encode(sent))
    assert isinstance(got, EngineRequest)
    assert got.prompt_vectors == sent.prompt_vectors


def test_keys_differ_where_prompts_do() -> None:
    digest = vectors().digest
    keys = {
        root_key(salt, stands_for)
        for salt in (None, "", "a", digest.hex())
        for stands_for in (None, digest, vectors(value=0.5).digest, vectors(num_tokens=4).digest)
    }
    assert len(keys) == 16
    # The same bytes in another shape are another prompt.
    assert vectors(num_tokens=10, width=2).digest != vectors(num_tokens=5, width=4).digest
    assert vectors().digest == digest


@pytest.mark.parametrize("dtype", LARGEST)
def test_the_largest_number_of_each_type(dtype: str) -> None:
    import torch

    largest = torch.finfo(getattr(torch, dtype)).max
    made = vectors_from(torch.tensor([[1.0, -largest]], dtype=getattr(torch, dtype)))
    assert made.largest == LARGEST[dtype] == largest
    check_vectors(made, width=2, dtype=dtype)
    check_vectors(made, width=2, dtype="float32")
    if dtype != "float16":
        with pytest.raises(RequestError, match="float16"):
            check_vectors(made, width=2, dtype="float16")
    for wrong in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(RequestError, match="NaN or an infinite"):
            vectors_from(torch.tensor([[1.0, wrong]], dtype=getattr(torch, dtype)))
