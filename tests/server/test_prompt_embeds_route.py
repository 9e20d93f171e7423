"""prompt_embeds over HTTP: what is taken, and every way to get it wrong."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors.numpy import save
from server_fakes import HIDDEN, MAX_TOKENS, FakeEngine, fake_config
from server_replies import events

from octavo.server.app import create_app

VECTORS = np.arange(3 * HIDDEN, dtype=np.float32).reshape(3, HIDDEN)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(fake_config(enable_prompt_embeds=True, dtype="float32"))


@pytest.fixture
async def client(engine: FakeEngine) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(engine, engine.config.server, engine.config.observe)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def packed(array: Any, **more: Any) -> str:
    return text(save({"prompt_embeds": array, **more}))


def crafted(header: Any, body: bytes = b"") -> str:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return text(struct.pack("<Q", len(raw)) + raw + body)


def bfloat16(array: np.ndarray[Any, Any]) -> str:
    halves = (array.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    entry = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [0, len(halves)]}
    return crafted({"x": entry}, halves)


async def post(client: httpx.AsyncClient, embeds: Any, **body: Any) -> httpx.Response:
    return await client.post("/v1/completions", json={"model": "fake", "prompt_embeds": embeds, **body})


async def test_one_prompt(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reply = (await post(client, packed(VECTORS), max_tokens=4, return_token_ids=True)).json()
    assert reply["usage"]["prompt_tokens"] == 3
    assert len(reply["choices"][0]["token_ids"]) == 4
    assert "prompt_token_ids" not in reply["choices"][0], "there are none to tell"
    (vectors,) = engine.vectors
    assert (vectors.dtype, vectors.num_tokens, vectors.width) == ("float32", 3, HIDDEN)
    assert vectors.data == VECTORS.tobytes()
    assert vectors.largest == 11.0


async def test_several_prompts_types_and_samples(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    embeds = [packed(VECTORS), packed(VECTORS.astype(np.float16)), bfloat16(VECTORS)]
    reply = (await post(client, embeds, n=2, max_tokens=2, prompt="")).json()
    assert [choice["index"] for choice in reply["choices"]] == list(range(6))
    assert [vectors.dtype for vectors in engine.vectors] == ["float32", "float16", "bfloat16"]
    assert [vectors.largest for vectors in engine.vectors] == [11.0] * 3
    assert len({vectors.digest for vectors in engine.vectors}) == 3


async def test_streams_and_defaults(client: httpx.AsyncClient) -> None:
    reply = await post(client, packed(VECTORS), stream=True)
    assert reply.status_code == 200
    assert len(events(reply)) == 16
    almost_full = np.zeros((MAX_TOKENS - 2, HIDDEN), dtype=np.float32)
    assert (await post(client, packed(almost_full))).json()["usage"]["completion_tokens"] == 2


async def test_metadata_in_the_file_is_allowed(client: httpx.AsyncClient) -> None:
    file = text(save({"x": VECTORS}, metadata={"made": "by hand"}))
    assert (await post(client, file)).status_code == 200


async def test_render_says_how_long_it_is(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"prompt_embeds": packed(VECTORS), "max_tokens": 5}
    (prompt,) = (await client.post("/v1/completions/render", json=body)).json()["prompts"]
    assert prompt == {"text": None, "token_ids": [], "num_tokens": 3, "max_tokens": 5}
    assert not engine.seen


ENTRY = {"dtype": "F32", "shape": [1, HIDDEN], "data_offsets": [0, 4 * HIDDEN]}
ZEROS = bytes(4 * HIDDEN)


def spoiled(value: float, dtype: str = "<f4") -> str:
    array = VECTORS.astype(dtype)
    array[1, 2] = value
    return bfloat16(array) if dtype == "<f4" and value != value else packed(array)


BAD: dict[str, tuple[Any, str]] = {
    "not base64": ("%%%%", "base64"),
    "not ascii": ("ü" * 8, "base64"),
    "url alphabet": ("-_-_", "base64"),
    "not padded": (text(save({"x": VECTORS}) + b"+")[:-1], "base64"),
    "line breaks": (packed(VECTORS)[:40] + "\n" + packed(VECTORS)[40:], "base64"),
    "number": (5, "string"),
    "list of numbers": ([[1.0, 2.0]], "string"),
    "empty list": ([], "empty"),
    "empty": ("", "safetensors"),
    "few bytes": ("AAAA", "safetensors"),
    "pickle": (text(pickle.dumps(VECTORS)), "safetensors"),
    "npy": (text((lambda f: (np.save(f, VECTORS), f.getvalue())[1])(io.BytesIO())), "safetensors"),
    "zip as torch.save writes it": (text(b"PK\x03\x04" + bytes(100)), "safetensors"),
    "two tensors": (packed(VECTORS, second=VECTORS), "2 tensors"),
    "no tensor": (crafted({}), "0 tensors"),
    "wrong hidden": (packed(np.zeros((3, HIDDEN + 1), np.float32)), str(HIDDEN)),
    "one dimension": (packed(VECTORS[0]), "shape"),
    "three dimensions": (packed(VECTORS[None]), "shape"),
    "no tokens": (packed(VECTORS[:0]), "shape"),
    "no width": (packed(np.zeros((3, 0), np.float32)), "shape"),
    "int32": (packed(VECTORS.astype(np.int32)), "int32"),
    "float64": (packed(VECTORS.astype(np.float64)), "float64"),
    "bool": (packed(VECTORS > 1), "bool"),
    "NaN float32": (packed(np.where(VECTORS == 5, np.float32("nan"), VECTORS)), "NaN"),
    "-Inf float32": (packed(np.where(VECTORS == 5, np.float32("-inf"), VECTORS)), "infinite"),
    "NaN float16": (spoiled(float("nan"), "<f2"), "NaN"),
    "Inf float16": (spoiled(float("inf"), "<f2"), "infinite"),
    "NaN bfloat16": (spoiled(float("nan")), "NaN"),
    "too many tokens": (packed(np.zeros((MAX_TOKENS, HIDDEN), np.float32)), "fit"),
    "truncated": (text(save({"x": VECTORS})[:-4]), "safetensors"),
    "bytes behind": (text(save({"x": VECTORS}) + b"more"), "safetensors"),
    "header bomb, announced": (text(struct.pack("<Q", 2**30) + b"{}"), "header"),
    "header bomb, sent": (crafted(b"{" + b" " * 200_000 + b"}"), "header"),
    "header nested deep": (crafted(b'{"x":' + b"[" * 60_000), "safetensors"),
    "header of 2^64": (text(b"\xff" * 16), "header"),
    "shape overflows": (crafted({"x": {**ENTRY, "shape": [2**40, 2**40]}}, ZEROS), "shape"),
    "negative shape": (crafted({"x": {**ENTRY, "shape": [-1, -HIDDEN]}}, ZEROS), "shape"),
    "offsets outside": (crafted({"x": {**ENTRY, "data_offsets": [8, 8 + 4 * HIDDEN]}}, ZEROS), "safetensors"),
    "named twice": (crafted(b'{"x":' + json.dumps(ENTRY).encode() + b',"x":{}}', ZEROS), "twice"),
    "sparse as three tensors": (packed(np.zeros((2, 3), np.int64), values=VECTORS), "2 tensors"),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_vectors(client: httpx.AsyncClient, engine: FakeEngine, case: str) -> None:
    embeds, word = BAD[case]
    reply = await post(client, embeds)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["param"] == "prompt_embeds"
    assert word in error["message"]
    assert "fetch it again" not in error["message"].lower()
    assert not engine.seen
    assert (await post(client, packed(VECTORS))).status_code == 200


async def test_the_bad_one_of_several_is_named(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reply = await post(client, [packed(VECTORS), "AAAA"])
    assert reply.json()["error"]["param"] == "prompt_embeds[1]"
    assert not engine.seen


WISHES: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "hi"}, "prompt"),
    ({"prompt": [1]}, "prompt"),
    ({"echo": True}, "echo"),
    ({"use_beam_search": True, "n": 2}, "use_beam_search"),
    ({"prompt_logprobs": 1}, "prompt_logprobs"),
    ({"truncate_prompt_tokens": 2}, "truncate_prompt_tokens"),
    ({"repetition_penalty": 1.2}, "repetition_penalty"),
    ({"dry_multiplier": 0.8}, "dry_multiplier"),
    ({"suffix": "end"}, "suffix"),
    ({"max_tokens": MAX_TOKENS}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
]


@pytest.mark.parametrize(("body", "param"), WISHES, ids=[param for _, param in WISHES])
async def test_what_needs_the_prompts_tokens(
    client: httpx.AsyncClient, engine: FakeEngine, body: dict[str, Any], param: str
) -> None:
    reply = await post(client, packed(VECTORS), **body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert not engine.seen


async def test_penalties_of_the_answer_go_with_it(client: httpx.AsyncClient) -> None:
    body = {"frequency_penalty": 0.5, "presence_penalty": 0.5, "repetition_penalty": 1.2, "repeat_last_n": 0}
    assert (await post(client, packed(VECTORS), **body)).status_code == 200


async def test_many_and_large(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    reply = await post(client, [packed(VECTORS)] * 300)
    assert reply.json()["error"]["param"] == "prompt_embeds"
    large = packed(np.zeros((400, HIDDEN), np.float32))
    assert (await post(client, large, n=128, max_tokens=1)).status_code == 200
    engine.ready = type(engine.ready)(
        plan=engine.ready.plan,
        max_request_tokens=MAX_TOKENS,
        vocab_size=engine.vocab_size,
        hidden_size=2048,
        memory_bytes={},
        seconds={},
    )
    wide = packed(np.zeros((100, 2048), np.float32))
    assert (await post(client, wide, n=50, max_tokens=1)).status_code == 200
    reply = await post(client, wide, n=100, max_tokens=1)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "n")


async def test_numbers_beyond_the_models_type() -> None:
    engine = FakeEngine(fake_config(enable_prompt_embeds=True, dtype="float16"))
    app = create_app(engine, engine.config.server, engine.config.observe)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await post(client, packed(VECTORS * 5000))).status_code == 200
        reply = await post(client, packed(VECTORS * 6000))
    assert reply.status_code == 400
    assert "float16" in reply.json()["error"]["message"]


async def test_off_by_default_and_named() -> None:
    engine = FakeEngine(fake_config())
    app = create_app(engine, engine.config.server, engine.config.observe)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for embeds in (packed(VECTORS), "nonsense", []):
            reply = await post(client, embeds)
            assert reply.status_code == 400
            assert "--enable-prompt-embeds" in reply.json()["error"]["message"]
        assert (await post(client, None, prompt="hi")).status_code == 200


async def test_elsewhere_it_is_refused_by_name(client: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "prompt_embeds": packed(VECTORS)}
    reply = await client.post("/v1/chat/completions", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt_embeds")


async def test_a_prompt_is_still_needed(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v1/completions", json={"model": "fake"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt")
