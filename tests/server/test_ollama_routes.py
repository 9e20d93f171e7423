"""The Ollama routes byte by byte: lines, shapes of errors, everything that is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, fake_config

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.app import create_app
from octavo.server.lifecycle import Lifecycle

CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
PROMPT: dict[str, Any] = {"model": "fake", "prompt": "hi"}


def check_refusal(response: httpx.Response, status: int, *words: str) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    error: str = response.json()["error"]
    assert isinstance(error, str) and all(word in error for word in words), error
    for secret in ("Traceback", "object at 0x", "/work", "pydantic", "msgspec"):
        assert secret not in error
    return error


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.endswith("\n") and "\n\n" not in response.text
    return [json.loads(line) for line in response.text.splitlines()]


async def test_streams_are_lines_and_the_default(client: httpx.AsyncClient) -> None:
    told = lines(await client.post("/api/chat", json={**CHAT, "options": {"num_predict": 2}}))
    assert [reply["done"] for reply in told] == [False, False, True]
    assert set(told[0]) == {"model", "created_at", "done", "message"}
    assert told[0]["message"].keys() == {"role", "content"}
    assert {"done_reason", "total_duration", "eval_count", "prompt_eval_count"} <= set(told[-1])
    told = lines(await client.post("/api/generate", json={**PROMPT, "options": {"num_predict": 2}}))
    assert [reply["done"] for reply in told] == [False, False, True]
    whole = await client.post("/api/generate", json={**PROMPT, "stream": False})
    assert whole.headers["content-type"] == "application/json" and whole.json()["done"]


async def test_tools_that_cannot_be_shown_are_refused_in_words_of_this_api(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.tokenizer.chat_template = "fake"
    tools = [{"type": "function", "function": {"name": "now", "parameters": {}}}]
    error = check_refusal(await client.post("/api/chat", json={**CHAT, "tools": tools}), 400, "/api/show")
    assert "tool_choice" not in error
    shown = (await client.post("/api/show", json={"model": "fake"})).json()
    assert "tools" not in shown["capabilities"]


async def test_an_error_in_a_stream_is_its_last_line(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.crash_at = 1
    told = lines(await client.post("/api/chat", json=CHAT))
    assert list(told[-1]) == ["error"] and "secret" not in told[-1]["error"]
    assert engine.num_open == 0


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "options.temperature"),
    ({"temperature": True}, "options.temperature"),
    ({"top_k": 1.5}, "options.top_k"),
    ({"top_k": -2}, "top_k"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 2}, "top_p"),
    ({"min_p": -0.1}, "min_p"),
    ({"seed": 2**70}, "seed"),
    ({"seed": "x"}, "options.seed"),
    ({"num_predict": 0}, "num_predict"),
    ({"num_predict": -3}, "num_predict"),
    ({"num_predict": 100_000}, "num_predict"),
    ({"num_ctx": 513}, "num_ctx"),
    ({"num_ctx": 0}, "options.num_ctx"),
    ({"num_ctx": "big"}, "options.num_ctx"),
    ({"stop": [1]}, "options.stop"),
    ({"stop": ["x"] * 100}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"repeat_penalty": 0}, "repeat_penalty"),
    ({"repeat_last_n": -2}, "repeat_last_n"),
    ({"repeat_last_n": 1.5}, "options.repeat_last_n"),
    ({"typical_p": 0}, "typical_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"mirostat": 1}, "mirostat"),
    ({"mirostat": "on"}, "mirostat"),
    ({"tfs_z": 0.5}, "tfs_z"),
    ({"vocab_only": True}, "vocab_only"),
    ({f"field{n}": n for n in range(300)}, "at most 256"),
]


@pytest.mark.parametrize(("options", "word"), BAD_OPTIONS)
@pytest.mark.parametrize("stream", [True, False])
async def test_bad_options(
    client: httpx.AsyncClient, engine: FakeEngine, options: Any, word: str, stream: bool
) -> None:
    for path, body in (
        ("/api/chat", CHAT),
        ("/api/generate", PROMPT),
        ("/api/generate", {**PROMPT, "raw": True}),
    ):
        check_refusal(await client.post(path, json={**body, "options": options, "stream": stream}), 400, word)
    assert engine.num_started == 0


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"model": None}, 400, "model"),
        ({"model": 3}, 400, "model"),
        ({"model": ""}, 404, "not found"),
        ({"model": "../../etc/passwd"}, 404, "not found"),
        ({"model": "x" * 10_000}, 404, "..."),
        ({"messages": "hi"}, 400, "messages"),
        ({"messages": [{"role": "pirate", "content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, 400, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, 400, "messages[0].images"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, 400, "tool_calls[0].function"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
                ]
            },
            400,
            "arguments",
        ),
        ({"messages": [{"role": "user", "content": "x" * 10_000}]}, 400, "characters"),
        ({"messages": [{"role": "user", "content": "x"}] * 5000}, 400, "messages"),
        ({"format": "yaml"}, 400, "format"),
        ({"format": 3}, 400, "format"),
        ({"think": "a lot"}, 400, "think"),
        ({"think": 2}, 400, "think"),
        ({"think": True}, 400, "does not support thinking"),
        ({"options": []}, 400, "options"),
        ({"options": "x"}, 400, "options"),
        ({"stream": "yes"}, 400, "stream"),
        ({"keep_alive": []}, 400, "keep_alive"),
        ({"logprobs": "all"}, 400, "logprobs"),
        ({"logprobs": True, "top_logprobs": 1000}, 400, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, 400, "top_logprobs"),
        ({"tools": {"a": 1}}, 400, "tools"),
        ({"_debug_render_only": True}, 400, "_debug_render_only"),
    ],
)
async def test_bad_chats(
    client: httpx.AsyncClient, engine: FakeEngine, fields: Any, status: int, word: str
) -> None:
    check_refusal(await client.post("/api/chat", json={**CHAT, **fields}), status, word)
    assert engine.num_started == 0


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["hi"]}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"images": ["aGk="]}, "images"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"raw": True, "system": "x"}, "raw"),
        ({"raw": True, "context": [1]}, "raw"),
        ({"raw": "yes"}, "raw"),
        ({"context": [1, 10**9]}, "context"),
        ({"context": [-1]}, "context"),
        ({"context": [True]}, "context"),
        ({"context": [1] * 600}, "tokens"),
        ({"context": "abc"}, "context"),
        ({"width": 512}, "width"),
        ({"prompt": "x" * 5000}, "characters"),
    ],
)
async def test_bad_prompts(client: httpx.AsyncClient, engine: FakeEngine, fields: Any, word: str) -> None:
    check_refusal(await client.post("/api/generate", json={**PROMPT, **fields}), 400, word)
    assert engine.num_started == 0


async def test_templates_of_requests_only_where_trusted() -> None:
    config = fake_config(trust_request_chat_template=True)
    engine = FakeEngine(config)
    app = create_app(engine, config.server, config.observe)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    body = {**PROMPT, "template": "{{ messages }}", "stream": False}
    assert (await client.post("/api/generate", json=body)).status_code == 200
    assert engine.tokenizer.rendered[-1]["chat_template"] == "{{ messages }}"


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/show", "/api/pull", "/api/embed"])
@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b'{"model": "fake"', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"model": "fake"}', "text/plain", 415),
        (b'{"model": "fake"}', "application/x-www-form-urlencoded", 415),
        (b'{"model": "fake", "options": ' + b"[" * 500 + b"]" * 500 + b"}", "application/json", 400),
    ],
)
async def test_malformed_bodies(
    client: httpx.AsyncClient, path: str, content: bytes, content_type: str, status: int
) -> None:
    response = await client.post(path, content=content, headers={"content-type": content_type})
    check_refusal(response, status)


async def test_fields_of_no_meaning_are_accepted(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {**CHAT, "stream": False, "format": "", "truncate": True, "keep_alive": "10m", "tools": []}
    body["options"] = {"num_predict": None, "low_vram": False, "mirostat_tau": 5.0, "tfs_z": 1}
    assert (await client.post("/api/chat", json=body)).status_code == 200
    assert engine.seen[-1][1].max_tokens is None


async def test_refused_orders(client: httpx.AsyncClient) -> None:
    for method, path in (
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/blobs/sha256:abc"),
    ):
        check_refusal(await client.request(method, path, json={"model": "fake"}), 400, "one model")
    check_refusal(await client.post("/api/show", json={"name": "other"}), 404, "not found")
    check_refusal(await client.post("/api/show", json={}), 404, "not found")
    check_refusal(await client.post("/api/embed", json={"model": "other", "input": "x"}), 404, "not found")
    check_refusal(await client.post("/api/embed", json={"model": "fake", "input": 5}), 400, "input")


async def test_probes(client: httpx.AsyncClient) -> None:
    root = await client.get("/")
    assert root.status_code == 200 and root.text.startswith("Octavo is running")
    assert root.headers["content-type"].startswith("text/plain")
    for path in ("/", "/api/version", "/api/tags", "/api/ps"):
        response = await client.head(path)
        assert response.status_code == 200
    version = (await client.get("/api/version")).json()
    assert version["version"].count(".") == 2 and set(version) == {"version", "octavo"}


async def test_what_is_around_the_routes_speaks_ollama_too() -> None:
    config = fake_config(api_key=["key"])
    lifecycle = Lifecycle()
    engine = FakeEngine(config)
    app = create_app(engine, config.server, config.observe, lifecycle)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    check_refusal(await client.post("/api/chat", json=CHAT), 401, "key")
    headers = {"authorization": "Bearer key"}
    check_refusal(await client.get("/api/nothing", headers=headers), 404)
    check_refusal(await client.get("/api/chat", headers=headers), 405, "POST")
    engine.refuse = EngineError("Too many requests wait.", code=ErrorCode.OVERLOADED)
    busy = await client.post("/api/chat", json=CHAT, headers=headers)
    check_refusal(busy, 503, "Too many")
    assert busy.headers["retry-after"] == "1"
    lifecycle.begin_drain()
    check_refusal(await client.post("/api/chat", json=CHAT, headers=headers), 503)


async def test_bodies_over_the_limit(client: httpx.AsyncClient) -> None:
    config = fake_config(max_body_bytes=1000)
    app = create_app(FakeEngine(config), config.server, config.observe)
    small = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    check_refusal(await small.post("/api/generate", json={**PROMPT, "prompt": "x" * 2000}), 413, "1000")
