"""Rendering without generating, timings in answers, /load and /tokenizer_info."""

from __future__ import annotations

import httpx
import pytest
from server_fakes import BOS, EOS, MAX_TOKENS, VOCAB, FakeEngine
from server_replies import check_error, events

from octavo.engine.outputs import RequestMetrics, RequestOutput
from octavo.server.openai.timings import timings_of

MESSAGES = [{"role": "user", "content": "Hi"}]
PIECES = {
    "prompt_n", "cache_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second", "predicted_n",
    "predicted_ms", "predicted_per_token_ms", "predicted_per_second", "queue_ms", "ttft_ms", "total_ms",
}  # fmt: skip


async def test_a_rendered_chat(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"messages": MESSAGES, "temperature": 0.5, "max_tokens": 7, "stop": ["x"], "timings": True}
    reply = (await client.post("/v1/chat/completions/render", json=body)).json()
    text = "[user]Hi[assistant]"
    assert reply == {
        "object": "rendered_request",
        "model": "fake",
        "prompts": [
            {"text": text, "token_ids": [ord(c) for c in text], "num_tokens": len(text), "max_tokens": 7}
        ],
        "sampling_params": {"temperature": 0.5, "max_tokens": 7, "stop": ["x"]},
    }
    assert not engine.seen and not engine.num_started


async def test_rendered_completions(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"prompt": ["ab", "c"], "model": "alias"}
    reply = (await client.post("/v1/completions/render", json=body)).json()
    assert reply["model"] == "alias"
    assert [prompt["token_ids"] for prompt in reply["prompts"]] == [[BOS, 97, 98], [BOS, 99]]
    assert reply["prompts"][0]["text"] == "<s>ab"
    assert [prompt["max_tokens"] for prompt in reply["prompts"]] == [16, 16]
    nearly_full = {"prompt": [1] * (MAX_TOKENS - 3)}
    reply = (await client.post("/v1/completions/render", json=nearly_full)).json()
    assert reply["prompts"][0]["max_tokens"] == 3
    engine.default_sampling = {"temperature": 0.3}
    reply = (await client.post("/v1/completions/render", json={"prompt": "a"})).json()
    assert reply["sampling_params"]["temperature"] == 0.3


async def test_no_limit_means_the_rest_of_the_context(client: httpx.AsyncClient) -> None:
    reply = (await client.post("/v1/chat/completions/render", json={"messages": MESSAGES})).json()
    prompt = reply["prompts"][0]
    assert prompt["max_tokens"] + prompt["num_tokens"] == MAX_TOKENS


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        ("chat/completions", {"messages": MESSAGES, "temperature": -1}, 400, "invalid_value", "temperature"),
        ("chat/completions", {"messages": []}, 400, "invalid_value", "messages"),
        ("chat/completions", {"messages": MESSAGES, "model": "x"}, 404, "model_not_found", "model"),
        ("completions", {"prompt": "x" * 9999}, 400, "context_length_exceeded", "prompt"),
        ("completions", {"prompt": [VOCAB]}, 400, "invalid_value", "prompt"),
        ("completions", {"prompt": "x", "timings": "yes"}, 400, "invalid_value", "timings"),
    ],
)
async def test_refused_as_it_would_be(
    client: httpx.AsyncClient, path: str, body: dict[str, object], status: int, code: str, param: str
) -> None:
    for suffix in ("/render", ""):
        check_error(await client.post(f"/v1/{path}{suffix}", json=body), status, code, param)


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
async def test_timings_only_where_asked_for(client: httpx.AsyncClient, path: str) -> None:
    body = {"prompt": "abc"} if path == "completions" else {"messages": MESSAGES}
    plain = await client.post(f"/v1/{path}", json=body)
    assert "timings" not in plain.json()
    timed = (await client.post(f"/v1/{path}", json={**body, "timings": True, "max_tokens": 6})).json()
    timings = timed["timings"]
    assert set(timings) == PIECES
    usage = timed["usage"]
    assert timings["predicted_n"] == usage["completion_tokens"] == 6
    assert timings["prompt_n"] + timings["cache_n"] == usage["prompt_tokens"]
    assert timings["cache_n"] == usage["prompt_tokens_details"]["cached_tokens"]
    assert 0 <= timings["queue_ms"] <= timings["ttft_ms"] <= timings["total_ms"]


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
@pytest.mark.parametrize("usage", [False, True])
async def test_timings_come_last_in_a_stream(client: httpx.AsyncClient, path: str, usage: bool) -> None:
    body = {"prompt": "abc"} if path == "completions" else {"messages": MESSAGES}
    body |= {"stream": True, "max_tokens": 4}
    if usage:
        body["stream_options"] = {"include_usage": True}
    without = events(await client.post(f"/v1/{path}", json=body))
    chunks = events(await client.post(f"/v1/{path}", json={**body, "timings": True}))
    assert not any("timings" in chunk for chunk in [*without, *chunks[:-1]])
    last = chunks[-1]
    assert last["choices"] == [] and last["timings"]["predicted_n"] == 4
    assert ("usage" in last) is usage
    assert len(chunks) == len(without) + (not usage)


def finished(**times: float) -> RequestOutput:
    metrics = RequestMetrics(arrival_time=10.0, num_prompt_tokens=100, num_output_tokens=11, **times)
    return RequestOutput(
        request_id="x", prompt=None, prompt_token_ids=[], metrics=metrics, num_cached_tokens=20, finished=True
    )


def test_the_arithmetic() -> None:
    output = finished(
        first_scheduled_time=10.5, first_token_time=11.5, last_token_time=13.5, finished_time=13.75
    )
    timings = timings_of([output])
    assert timings is not None
    assert (timings.prompt_n, timings.cache_n, timings.predicted_n) == (80, 20, 11)
    assert (timings.queue_ms, timings.ttft_ms, timings.total_ms) == (500, 1500, 3750)
    assert (timings.prompt_ms, timings.prompt_per_token_ms, timings.prompt_per_second) == (1000, 12.5, 80)
    assert (timings.predicted_ms, timings.predicted_per_token_ms) == (2000, 200)
    assert timings.predicted_per_second == 5


def test_what_cannot_be_known_is_null_and_never_a_division_by_zero() -> None:
    timings = timings_of([finished()])
    assert timings is not None
    assert timings.ttft_ms is timings.predicted_per_second is timings.prompt_per_token_ms is None
    at_once = finished(first_scheduled_time=10, first_token_time=10, last_token_time=10, finished_time=10)
    assert timings_of([at_once]).prompt_per_second is None  # type: ignore[union-attr]
    assert timings_of([RequestOutput(request_id="x", prompt=None, prompt_token_ids=[])]) is None


def test_several_prompts_are_one_piece_of_work() -> None:
    first = finished(first_scheduled_time=10.1, first_token_time=10.2, last_token_time=10.4)
    second = finished(first_scheduled_time=10.3, first_token_time=10.5, last_token_time=11, finished_time=11)
    timings = timings_of([first, second])
    assert timings is not None
    assert (timings.predicted_n, timings.prompt_n, timings.total_ms) == (22, 160, 1000)
    assert timings.ttft_ms == pytest.approx(200)


async def test_load(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.num_open = 3
    reply = (await client.get("/load")).json()
    assert reply == {"server_load": 3, "running": 3, "waiting": 0, "kv_usage": 0.25}


async def test_tokenizer_info(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await client.get("/tokenizer_info")).json() == {
        "vocab_size": VOCAB,
        "max_model_len": MAX_TOKENS,
        "bos_token_id": BOS,
        "eos_token_ids": [EOS],
        "special_tokens": {"eos_token": "<eos>"},
        "chat_template": engine.tokenizer.chat_template,
    }
