"""huggingface_hub's InferenceClient against a server: what applications made for TGI see."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient, constants
from huggingface_hub.errors import GenerationError, OverloadedError, ValidationError
from server_fakes import FakeEngine, answer_text
from server_live import LiveServer, until

from octavo.base.errors import EngineError, ErrorCode

PROMPT_IDS = [256, *b"hi"]


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests keep this client off the hub; the server here is our own."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(params=["", "/generate"])
def api(live: LiveServer, request: pytest.FixtureRequest) -> InferenceClient:
    """By the server's address and by the route's."""
    return InferenceClient(live.url + request.param)


@pytest.fixture
def streaming(live: LiveServer) -> InferenceClient:
    return InferenceClient(live.url)


def test_text(api: InferenceClient, engine: FakeEngine) -> None:
    assert api.text_generation("hi", max_new_tokens=4) == answer_text(PROMPT_IDS, 0, 4)
    params = engine.seen[-1][1]
    assert params.temperature == 0 and params.max_tokens == 4 and params.logprobs is None
    assert api.text_generation("hi", max_new_tokens=2, return_full_text=True).startswith("hi")


def test_without_a_number_100_tokens_come(api: InferenceClient, engine: FakeEngine) -> None:
    assert len(api.text_generation("hi")) == 100
    assert len(api.text_generation("x" * 471)) == 40  # what the context of 512 has left


def test_details(api: InferenceClient) -> None:
    reply = api.text_generation(
        "hi", max_new_tokens=3, details=True, decoder_input_details=True, top_n_tokens=2
    )
    details = reply.details
    assert details is not None and reply.generated_text == answer_text(PROMPT_IDS, 0, 3)
    assert (details.finish_reason, details.generated_tokens, details.seed) == ("length", 3, None)
    assert [token.id for token in details.prefill] == PROMPT_IDS
    assert details.prefill[0].logprob is None and details.prefill[1].logprob == -1.0
    assert "".join(token.text for token in details.tokens) == reply.generated_text
    assert not any(token.special for token in details.tokens) and details.tokens[0].logprob == -1.0
    assert details.top_tokens is not None
    assert [len(best) for best in details.top_tokens] == [2, 2, 2]  # type: ignore[arg-type]
    assert api.text_generation("hi", max_new_tokens=1, details=True).details.prefill == []  # type: ignore[union-attr]


def test_stream(streaming: InferenceClient) -> None:
    texts = list(streaming.text_generation("hi", max_new_tokens=4, stream=True))
    assert len(texts) == 4 and "".join(texts) == answer_text(PROMPT_IDS, 0, 4)


def test_stream_with_details(streaming: InferenceClient) -> None:
    events = list(
        streaming.text_generation("hi", max_new_tokens=3, stream=True, details=True, top_n_tokens=1)
    )
    assert [event.index for event in events] == [1, 2, 3]
    assert [event.generated_text for event in events[:2]] == [None, None]
    last = events[-1]
    assert last.generated_text == answer_text(PROMPT_IDS, 0, 3) and last.details is not None
    assert (last.details.finish_reason, last.details.generated_tokens) == ("length", 3)
    assert last.details.input_length == 3
    assert all(event.top_tokens is not None and len(event.top_tokens) == 1 for event in events)


async def test_async_client(live: LiveServer) -> None:
    client = AsyncInferenceClient(live.url)
    text = await client.text_generation("hi", max_new_tokens=3)
    parts = [part async for part in await client.text_generation("hi", max_new_tokens=3, stream=True)]
    assert "".join(parts) == text == answer_text(PROMPT_IDS, 0, 3)


def test_sampling(api: InferenceClient, engine: FakeEngine) -> None:
    engine.default_sampling.update({"temperature": 0.3, "top_p": 0.2, "repetition_penalty": 1.3})
    api.text_generation("hi", max_new_tokens=1)
    params = engine.seen[-1][1]
    assert (params.temperature, params.top_p, params.repetition_penalty) == (0, 1.0, 1.0)
    api.text_generation("hi", max_new_tokens=1, do_sample=False)
    assert engine.seen[-1][1].temperature == 0
    api.text_generation("hi", max_new_tokens=1, top_k=7, repetition_penalty=1.1, frequency_penalty=0.5)
    params = engine.seen[-1][1]
    assert (params.temperature, params.top_k, params.repetition_penalty) == (1.0, 7, 1.1)
    assert params.frequency_penalty == 0.5 and params.seed is not None
    api.text_generation("hi", max_new_tokens=1, temperature=0.7, top_p=0.9, seed=5, stop=["."], truncate=1)
    prompt, params, _ = engine.seen[-1]
    assert (params.temperature, params.top_p, params.seed, params.stop) == (0.7, 0.9, 5, ["."])
    assert params.include_stop_str_in_output and prompt == [*b"i"]


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize("stream", [False, True])
def test_grammar(streaming: InferenceClient, engine: FakeEngine, stream: bool) -> None:
    def ask(kind: str, value: Any) -> str:
        """The grammar as the engine got it."""
        grammar: Any = {"type": kind, "value": value}
        reply = streaming.text_generation("hi", max_new_tokens=2, grammar=grammar, stream=stream)
        assert len("".join(reply)) == 2
        form = engine.seen[-1][1].structured_outputs
        assert form is not None and form.canonical is not None
        return form.canonical

    for kind, value in (
        ("json", CITY),
        ("json", json.dumps(CITY)),
        ("json_schema", {"name": "city", "schema": CITY}),
    ):
        assert '"required": ["city"]' in ask(kind, value)
    assert "[a-z]+" in ask("regex", "[a-z]+")
    for kind, value in (("json", {"type": "town"}), ("regex", "(")):
        with pytest.raises(ValidationError, match=r"grammar\.value"):
            ask(kind, value)


def test_seeds_that_were_drawn_are_told(api: InferenceClient, engine: FakeEngine) -> None:
    reply = api.text_generation("hi", max_new_tokens=1, do_sample=True, details=True)
    assert reply.details is not None and reply.details.seed == engine.seen[-1][1].seed
    again = api.text_generation("hi", max_new_tokens=1, do_sample=True, details=True)
    assert again.details is not None and again.details.seed != reply.details.seed


def test_errors_arrive_as_the_clients_classes(streaming: InferenceClient, engine: FakeEngine) -> None:
    with pytest.raises(ValidationError, match="temperature"):
        streaming.text_generation("hi", temperature=-1)
    with pytest.raises(ValidationError, match="best_of"):
        streaming.text_generation("hi", best_of=2)
    engine.fail_at = 0
    with pytest.raises(GenerationError, match="step failed"):
        streaming.text_generation("hi")
    engine.fail_at = 2
    texts: list[str] = []
    with pytest.raises(GenerationError, match="step failed"):
        texts.extend(streaming.text_generation("hi", stream=True))
    engine.refuse = EngineError("Too many requests wait.", code=ErrorCode.OVERLOADED)
    with pytest.raises(OverloadedError, match="Too many"):
        streaming.text_generation("hi")


def test_closing_a_stream_aborts(live: LiveServer, engine: FakeEngine) -> None:
    engine.stall_at = 2
    client = InferenceClient(live.url)
    stream: Any = client.text_generation("hi", stream=True)
    next(iter(stream))
    stream.close()
    client.exit_stack.close()
    until(lambda: engine.num_open == 0)
    assert engine.num_aborted == 1


async def test_a_cancelled_reply_aborts(live: LiveServer, engine: FakeEngine) -> None:
    engine.stall_at = 2
    task = asyncio.create_task(AsyncInferenceClient(live.url).text_generation("hi"))
    while not engine.num_open:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    until(lambda: engine.num_open == 0)
    assert engine.num_aborted == 1
