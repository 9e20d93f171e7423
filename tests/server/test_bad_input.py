"""Rows H01-H08, H13-H16 and V01-V20 of the reliability list: what is sent -> status, code, parameter."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from server_fakes import MAX_TOKENS, VOCAB, FakeEngine, fake_config
from server_replies import check_error

from octavo.server.app import create_app

JSON = {"content-type": "application/json"}
Case = tuple[str, Any, int, str, str | None]

RAW: list[tuple[str, bytes, int, str, str | None]] = [
    ("H01 open brace", b"{", 400, "json_invalid", None),
    ("H01 close bracket", b"]", 400, "json_invalid", None),
    ("H01 empty", b"", 400, "body_required", None),
    ("H01 whitespace", b" \n\t", 400, "body_required", None),
    ("H01 null", b"null", 400, "json_invalid", None),
    ("H01 number", b"123", 400, "json_invalid", None),
    ("H01 string", b'"x"', 400, "json_invalid", None),
    ("H01 list", b"[]", 400, "json_invalid", None),
    ("H02 two documents", b"{}{}", 400, "json_invalid", None),
    ("H02 trailing garbage", b"{} x", 400, "json_invalid", None),
    ("H02 comment", b'{"a": 1 /* x */}', 400, "json_invalid", None),
    ("H02 BOM", b"\xef\xbb\xbf{}", 400, "json_invalid", None),
    ("H03 overlong", b'{"prompt": "\xc0\x80"}', 400, "invalid_utf8", None),
    ("H03 lone F5", b'{"prompt": "\xf5"}', 400, "invalid_utf8", None),
    ("H03 cut sequence", b'{"prompt": "\xe2\x82"}', 400, "invalid_utf8", None),
    ("H03 in a name", b'{"\xff": 1}', 400, "invalid_utf8", None),
    ("H03 outside of strings", b'{"prompt": \xff}', 400, "invalid_utf8", None),
    ("H04 lone surrogate", b'{"prompt": "\\ud800"}', 400, "json_invalid", None),
    ("H06 deep lists", b'{"metadata": ' + b"[" * 100 + b"]" * 100 + b"}", 400, "too_deep", None),
    ("H06 deeper lists", b"[" * 49_000, 400, "too_deep", None),
    ("H06 deepest objects", b'{"a":' * 1_000_000, 413, "body_too_large", None),
    ("H06 deep objects", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, "too_deep", None),
    (
        "H07 many keys",
        b"{" + b",".join(b'"k%d":1' % i for i in range(1000)) + b"}",
        400,
        "invalid_value",
        None,
    ),
    ("H07 a million keys", b"{" + b'"k":1,' * 1_000_000 + b'"k":1}', 413, "body_too_large", None),
    ("H08 1e400", b'{"prompt": "x", "temperature": 1e400}', 400, "invalid_value", "temperature"),
    ("H08 -1e400", b'{"prompt": "x", "top_p": -1e400}', 400, "invalid_value", "top_p"),
    ("H08 NaN", b'{"prompt": "x", "temperature": NaN}', 400, "invalid_value", "temperature"),
    ("H08 Infinity", b'{"prompt": "x", "min_p": Infinity}', 400, "invalid_value", "min_p"),
    ("H08 -Infinity nested", b'{"logit_bias": {"5": -Infinity}}', 400, "invalid_value", "logit_bias.5"),
    ("H08 5,000 digits", b'{"prompt": "x", "seed": ' + b"9" * 5000 + b"}", 400, "invalid_value", "seed"),
    ("H08 hexadecimal", b'{"prompt": "x", "seed": 0x10}', 400, "json_invalid", None),
    ("H08 leading zero", b'{"prompt": "x", "seed": 01}', 400, "json_invalid", None),
    ("H08 float for int", b'{"prompt": "x", "max_tokens": 1.0}', 400, "invalid_value", "max_tokens"),
]

MEDIA: list[tuple[str, str | None]] = [
    ("missing", None),
    ("text", "text/plain"),
    ("form", "application/x-www-form-urlencoded"),
    ("utf-16", "application/json; charset=utf-16"),
]

LONG = "x" * 100_000

COMPLETION: list[Case] = [
    ("V01 unknown model", {"model": "other"}, 404, "model_not_found", "model"),
    ("V01 number", {"model": 5}, 400, "invalid_value", "model"),
    ("V01 list", {"model": ["fake"]}, 400, "invalid_value", "model"),
    ("V01 long", {"model": "m" * 1_000_000}, 404, "model_not_found", "model"),
    ("V01 path", {"model": "../x"}, 404, "model_not_found", "model"),
    ("V03 missing", {"prompt": None}, 400, "invalid_value", "prompt"),
    ("V03 number", {"prompt": 5}, 400, "invalid_value", "prompt"),
    ("V03 many", {"prompt": ["x"] * 100_000}, 400, "invalid_value", "prompt"),
    ("V03 mixed", {"prompt": ["x", 5]}, 400, "invalid_value", "prompt"),
    ("V03 mixed ids", {"prompt": [5, "x"]}, 400, "invalid_value", "prompt"),
    ("V03 mixed lists", {"prompt": [[5], "x"]}, 400, "invalid_value", "prompt"),
    ("V04 by one", {"prompt": [65] * MAX_TOKENS, "max_tokens": 1}, 400, "context_length_exceeded", "prompt"),
    (
        "V04 with answer",
        {"prompt": [65] * 500, "max_tokens": 13},
        400,
        "context_length_exceeded",
        "max_tokens",
    ),
    ("V04 ten times", {"prompt": [65] * 5120}, 400, "context_length_exceeded", "prompt"),
    ("V04 text", {"prompt": LONG}, 400, "context_length_exceeded", "prompt"),
    ("V04 second text", {"prompt": ["x", LONG]}, 400, "context_length_exceeded", "prompt[1]"),
    ("V05 negative", {"prompt": [-1]}, 400, "invalid_value", "prompt"),
    ("V05 vocab size", {"prompt": [VOCAB]}, 400, "invalid_value", "prompt"),
    ("V05 2^31", {"prompt": [2**31]}, 400, "invalid_value", "prompt"),
    ("V05 2^63", {"prompt": [2**63]}, 400, "invalid_value", "prompt"),
    ("V05 float", {"prompt": [1.5]}, 400, "invalid_value", "prompt"),
    ("V05 bool", {"prompt": [True]}, 400, "invalid_value", "prompt"),
    ("V05 string", {"prompt": [[5, "5"]]}, 400, "invalid_value", "prompt"),
    ("V05 null", {"prompt": [None]}, 400, "invalid_value", "prompt"),
    ("V05 second", {"prompt": [[1], [VOCAB]]}, 400, "invalid_value", "prompt[1]"),
    ("V06 zero", {"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ("V06 negative", {"max_tokens": -1}, 400, "invalid_value", "max_tokens"),
    ("V06 huge", {"max_tokens": 10**12}, 400, "context_length_exceeded", "max_tokens"),
    ("V06 min over max", {"min_tokens": 5, "max_tokens": 4}, 400, "invalid_value", "min_tokens"),
    ("V06 min over null", {"min_tokens": 500, "max_tokens": None}, 400, "invalid_value", "min_tokens"),
    (
        "V06 min over zero",
        {"min_tokens": 1, "max_tokens": 0, "echo": True},
        400,
        "invalid_value",
        "min_tokens",
    ),
    ("V08 n zero", {"n": 0}, 400, "invalid_value", "n"),
    ("V08 n negative", {"n": -1}, 400, "invalid_value", "n"),
    ("V08 n huge", {"n": 10**9}, 400, "invalid_value", "n"),
    ("V08 n times prompts", {"n": 100, "prompt": ["x"] * 5}, 400, "invalid_value", "n"),
    ("V08 best_of", {"best_of": 2}, 400, "unsupported_value", "best_of"),
    (
        "V08 beams",
        {"use_beam_search": True, "beam_width": 10**6},
        400,
        "invalid_value",
        "beam_width",
    ),
    ("V08 beam width", {"beam_width": 10**6}, 400, "invalid_value", "beam_width"),
    ("V09 logprobs -1", {"logprobs": -1}, 400, "invalid_value", "logprobs"),
    ("V09 logprobs -2", {"logprobs": -2}, 400, "invalid_value", "logprobs"),
    ("V09 logprobs huge", {"logprobs": 10**9}, 400, "invalid_value", "logprobs"),
    ("V09 prompt_logprobs", {"prompt_logprobs": VOCAB + 1}, 400, "invalid_value", "prompt_logprobs"),
    ("V09 in a stream", {"prompt_logprobs": 1, "stream": True}, 400, "invalid_value", "prompt_logprobs"),
    ("V10 key -1", {"logit_bias": {"-1": 1}}, 400, "invalid_value", "logit_bias"),
    ("V10 key vocab", {"logit_bias": {str(VOCAB): 1}}, 400, "invalid_value", "logit_bias"),
    ("V10 key word", {"logit_bias": {"abc": 1}}, 400, "invalid_value", "logit_bias"),
    ("V10 key digits", {"logit_bias": {"9" * 5000: 1}}, 400, "invalid_value", "logit_bias"),
    ("V10 many", {"logit_bias": {str(i): 1 for i in range(40_000)}}, 400, "invalid_value", "logit_bias"),
    ("V10 value", {"logit_bias": {"5": 1e9}}, 400, "invalid_value", "logit_bias"),
    ("V10 list", {"logit_bias": [1]}, 400, "invalid_value", "logit_bias"),
    ("V11 allowed range", {"allowed_token_ids": [VOCAB]}, 400, "invalid_value", "allowed_token_ids"),
    ("V11 allowed empty", {"allowed_token_ids": []}, 400, "invalid_value", "allowed_token_ids"),
    ("V11 allowed long", {"allowed_token_ids": [1] * 100_000}, 400, "invalid_value", "allowed_token_ids"),
    ("V11 stop ids", {"stop_token_ids": [-1]}, 400, "invalid_value", "stop_token_ids"),
    ("V11 stop ids long", {"stop_token_ids": [1] * 100_000}, 400, "invalid_value", "stop_token_ids"),
    ("V11 bad words", {"bad_words": [""]}, 400, "invalid_value", "bad_words"),
    ("V11 bad words long", {"bad_words": ["x" * 1000] * 66}, 400, "invalid_value", "bad_words"),
    ("V11 bad word type", {"bad_words": [5]}, 400, "invalid_value", "bad_words[0]"),
    ("V13 seed -2^64", {"seed": -(2**64)}, 400, "invalid_value", "seed"),
    ("V13 seed 2^64", {"seed": 2**64}, 400, "invalid_value", "seed"),
    ("V13 seed float", {"seed": 1.5}, 400, "invalid_value", "seed"),
    ("V14 stream_options", {"stream": True, "stream_options": 5}, 400, "invalid_value", "stream_options"),
    (
        "V14 inside stream_options",
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        400,
        "invalid_value",
        "stream_options.include_usage",
    ),
    ("V14 no stream", {"stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
    ("V14 stream word", {"stream": "true"}, 400, "invalid_value", "stream"),
    ("V14 suffix", {"suffix": "end"}, 400, "unsupported_value", "suffix"),
    ("V15 transfer", {"kv_transfer_params": {"x": 1}}, 400, "unsupported_value", "kv_transfer_params"),
    ("V15 priority", {"priority": 1}, 400, "unsupported_value", "priority"),
    ("V16 empty salt", {"cache_salt": ""}, 400, "invalid_value", "cache_salt"),
    ("V16 number", {"cache_salt": 5}, 400, "invalid_value", "cache_salt"),
    ("V16 long salt", {"cache_salt": "s" * 1_000_000}, 400, "invalid_value", "cache_salt"),
    ("V19 embeddings, off", {"prompt_embeds": "AAAA"}, 400, "unsupported_value", "prompt_embeds"),
    ("stop empty", {"stop": ""}, 400, "invalid_value", "stop"),
    ("stop type", {"stop": [5]}, 400, "invalid_value", "stop"),
    ("stop many", {"stop": ["x"] * 1000}, 400, "invalid_value", "stop"),
    ("temperature", {"temperature": -1}, 400, "invalid_value", "temperature"),
    ("temperature word", {"temperature": "hot"}, 400, "invalid_value", "temperature"),
    ("top_p", {"top_p": 0}, 400, "invalid_value", "top_p"),
    ("truncate", {"truncate_prompt_tokens": 0}, 400, "invalid_value", "truncate_prompt_tokens"),
    ("G04 grammar", {"structured_outputs": {"regex": 5}}, 400, "invalid_value", "structured_outputs.regex"),
    ("G04 two", {"guided_regex": "a", "guided_json": {}}, 400, "invalid_value", "guided_regex"),
    ("G09 backend", {"guided_decoding_backend": "x"}, 400, "unsupported_value", "guided_decoding_backend"),
]

USER = {"role": "user", "content": "x"}

CHAT: list[Case] = [
    ("missing messages", {"messages": None}, 400, "invalid_value", "messages"),
    ("no messages", {"messages": []}, 400, "invalid_value", "messages"),
    ("message type", {"messages": [5]}, 400, "invalid_value", "messages[0]"),
    ("role", {"messages": [{"role": "root", "content": "x"}]}, 400, "invalid_value", "messages[0].role"),
    ("no content", {"messages": [{"role": "user"}]}, 400, "invalid_value", "messages[0].content"),
    (
        "content type",
        {"messages": [{"role": "user", "content": 5}]},
        400,
        "invalid_value",
        "messages[0].content",
    ),
    (
        "image",
        {"messages": [USER, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        400,
        "unsupported_value",
        "messages[1].content[0].type",
    ),
    (
        "part without text",
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        400,
        "invalid_value",
        "messages[0].content[0].text",
    ),
    (
        "arguments",
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
        400,
        "invalid_value",
        "messages[0].tool_calls[0].function.arguments",
    ),
    ("long", {"messages": [{"role": "user", "content": LONG}]}, 400, "context_length_exceeded", "messages"),
    (
        "no room",
        {"messages": [{"role": "user", "content": "x" * 600}]},
        400,
        "context_length_exceeded",
        "messages",
    ),
    ("max_tokens", {"max_completion_tokens": 1000}, 400, "context_length_exceeded", "max_tokens"),
    ("both names", {"max_completion_tokens": 5, "max_tokens": 6}, 400, "invalid_value", "max_tokens"),
    ("V09 top_logprobs -1", {"logprobs": True, "top_logprobs": -1}, 400, "invalid_value", "top_logprobs"),
    ("V09 top_logprobs", {"logprobs": True, "top_logprobs": 10**9}, 400, "invalid_value", "top_logprobs"),
    ("V09 alone", {"top_logprobs": 2}, 400, "invalid_value", "top_logprobs"),
    ("logprobs int", {"logprobs": 1}, 400, "invalid_value", "logprobs"),
    ("V14 tools", {"tools": [{"type": "function"}]}, 400, "invalid_value", "tools[0].function"),
    ("V14 tool_choice", {"tool_choice": "required"}, 400, "invalid_value", "tool_choice"),
    (
        "V14 response_format",
        {"response_format": {"type": "xml"}},
        400,
        "unsupported_value",
        "response_format.type",
    ),
    ("audio", {"modalities": ["text", "audio"]}, 400, "unsupported_value", "modalities"),
    ("V14 effort", {"reasoning_effort": "Low"}, 400, "unsupported_value", "reasoning_effort"),
    ("store", {"store": True}, 400, "unsupported_value", "store"),
    ("template", {"chat_template": "{{ 1 }}"}, 400, "unsupported_value", "chat_template"),
    ("continue user", {"continue_final_message": True}, 400, "invalid_value", "continue_final_message"),
]

TOKENS: list[tuple[str, str, Any, int, str, str | None]] = [
    ("both", "/tokenize", {"prompt": "x", "messages": [USER]}, 400, "invalid_value", "prompt"),
    ("none", "/tokenize", {}, 400, "invalid_value", "prompt"),
    ("long", "/tokenize", {"prompt": LONG}, 400, "context_length_exceeded", "prompt"),
    ("model", "/tokenize", {"prompt": "x", "model": "y"}, 404, "model_not_found", "model"),
    ("range", "/detokenize", {"tokens": [VOCAB]}, 400, "invalid_value", "tokens"),
    ("negative", "/detokenize", {"tokens": [-1]}, 400, "invalid_value", "tokens"),
    ("many", "/detokenize", {"tokens": [1] * 100_000}, 400, "context_length_exceeded", "tokens"),
    ("float", "/detokenize", {"tokens": [1.0]}, 400, "invalid_value", "tokens[0]"),
    ("missing", "/detokenize", {}, 400, "invalid_value", "tokens"),
]


def names(cases: list[Any]) -> list[str]:
    return [case[0] for case in cases]


@pytest.fixture(scope="module")
def engine() -> FakeEngine:
    return FakeEngine(fake_config())


@pytest.fixture(scope="module")
def client(engine: FakeEngine) -> httpx.AsyncClient:
    """One application for all rows: none of them may leave a trace in it."""
    app = create_app(engine, engine.config.server, engine.config.observe)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture(autouse=True)
def forget(engine: FakeEngine) -> None:
    engine.seen.clear()
    engine.num_started = 0


@pytest.mark.parametrize("case", RAW, ids=names(RAW))
async def test_raw_body(client: httpx.AsyncClient, engine: FakeEngine, case: Any) -> None:
    _, body, *expected = case
    check_error(await client.post("/v1/completions", content=body, headers=JSON), *expected)
    assert not engine.seen


@pytest.mark.parametrize("case", MEDIA, ids=names(MEDIA))
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"])
async def test_media_type(client: httpx.AsyncClient, path: str, case: Any) -> None:
    headers = {"content-type": case[1]} if case[1] else {}
    response = await client.post(path, content=b"{}", headers=headers)
    check_error(response, 415, "unsupported_media_type", None)


async def test_media_type_with_the_right_charset(client: httpx.AsyncClient) -> None:
    headers = {"content-type": 'Application/JSON; charset="UTF-8"'}
    response = await client.post("/tokenize", content=b'{"prompt": "x"}', headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("case", COMPLETION, ids=names(COMPLETION))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_completion_body(
    client: httpx.AsyncClient, engine: FakeEngine, case: Any, stream: bool
) -> None:
    _, fields, *expected = case
    body = {"model": "fake", "prompt": "x", **fields}
    if stream:
        if "no stream" in case[0]:
            pytest.skip("the row is about bodies that do not stream")
        body.setdefault("stream", True)
    if stream and "prompt_logprobs" in case[0]:
        expected = [400, "invalid_value", "prompt_logprobs"]
    check_error(await client.post("/v1/completions", json=body), *expected)
    assert not engine.num_started


@pytest.mark.parametrize("case", CHAT, ids=names(CHAT))
async def test_chat_body(client: httpx.AsyncClient, engine: FakeEngine, case: Any) -> None:
    _, fields, *expected = case
    body = {"model": "fake", "messages": [USER], **fields}
    check_error(await client.post("/v1/chat/completions", json=body), *expected)
    assert not engine.num_started


@pytest.mark.parametrize("case", TOKENS, ids=names(TOKENS))
async def test_token_bodies(client: httpx.AsyncClient, case: Any) -> None:
    _, path, body, *expected = case
    check_error(await client.post(path, json=body), *expected)


async def test_both_counts_are_in_the_message(client: httpx.AsyncClient) -> None:
    body = {"model": "fake", "prompt": [65] * 500, "max_tokens": 100}
    message = (await client.post("/v1/completions", json=body)).json()["error"]["message"]
    assert "500" in message and "100" in message and str(MAX_TOKENS) in message


async def test_a_callers_word_is_short_and_escaped(client: httpx.AsyncClient) -> None:
    body = {"model": "\u0000\u001b[31m" + "m" * 1000, "prompt": "x"}
    message = (await client.post("/v1/completions", json=body)).json()["error"]["message"]
    assert len(message) < 200 and message.isprintable()


@pytest.mark.parametrize("text", ["a\u0000b", "\ufffe", "e\u0301" * 200, "\U0001f600"])
async def test_h04_odd_characters_are_text(client: httpx.AsyncClient, text: str) -> None:
    response = await client.post("/v1/completions", json={"prompt": text, "echo": True, "max_tokens": 1})
    assert response.status_code == 200
    assert response.json()["choices"][0]["text"].startswith(text)


@pytest.mark.parametrize("depth", [10, 62])
async def test_h06_allowed_depth(client: httpx.AsyncClient, depth: int) -> None:
    body = b'{"prompt": "x", "metadata": ' + b"[" * depth + b"1" + b"]" * depth + b"}"
    assert (await client.post("/v1/completions", content=body, headers=JSON)).status_code == 200


async def test_many_short_messages_are_not_deep(client: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": ""}] * 40 + [{"role": "user", "content": "x"}]}
    response = await client.post("/tokenize", json={**body, "chat_template_kwargs": {"a": [[]] * 100}})
    assert response.status_code == 200


async def test_v15_internal_names_never_reach_the_engine(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    body = {"prompt": "x", "__proto__": {}, "__class__": "x", "request_id": "mine", "mm_hashes": ["x"]}
    response = await client.post("/v1/completions", json=body)
    assert response.status_code == 200 and "mine" not in response.json()["id"]


@pytest.mark.parametrize("salt", ["\u0000", "../../x", "é" * 128, "a b"])
async def test_v16_odd_salts_are_only_salts(client: httpx.AsyncClient, engine: FakeEngine, salt: str) -> None:
    assert (await client.post("/v1/completions", json={"prompt": "x", "cache_salt": salt})).status_code == 200
    assert engine.seen[0][2]["cache_salt"] == salt


V20: dict[str, tuple[Any, Any]] = {
    "temperature": (0, 100),
    "top_p": (1e-9, 1),
    "top_k": (-1, 10**9),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (1e-6, 100),
    "seed": (-(2**63), 2**64 - 1),
    "n": (1, 128),
    "logprobs": (0, 64),
    "max_tokens": (1, MAX_TOKENS - 2),
    "min_tokens": (0, 1),
}


@pytest.mark.parametrize("first", V20)
async def test_v20_extremes_in_pairs(client: httpx.AsyncClient, first: str) -> None:
    for one in V20[first]:
        for second in V20:
            for other in V20[second] if second > first else ():
                body = {"prompt": "x", "max_tokens": 2, first: one, second: other}
                if body.get("n") == 128 and body["max_tokens"] > 2:
                    continue  # allowed, but slow with a fake that makes every token
                response = await client.post("/v1/completions", json=body)
                assert response.status_code == 200, (first, one, second, other, response.text)


@pytest.fixture
async def small(engine: FakeEngine) -> httpx.AsyncClient:
    config = fake_config(max_body_bytes=1000)
    app = create_app(engine, config.server, config.observe)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_h13_length_over_the_limit_is_refused_unread(small: httpx.AsyncClient) -> None:
    response = await small.post("/v1/completions", content=b" " * 1001, headers=JSON)
    check_error(response, 413, "body_too_large", None)


async def test_h13_chunks_over_the_limit_are_not_held(small: httpx.AsyncClient) -> None:
    num_sent = 0

    async def drip() -> Any:
        nonlocal num_sent
        for _ in range(1000):
            num_sent += 1
            yield b" " * 100

    response = await small.post("/v1/completions", content=drip(), headers=JSON)
    check_error(response, 413, "body_too_large", None)
    assert num_sent <= 12


async def test_body_of_exactly_the_limit(small: httpx.AsyncClient) -> None:
    body = json.dumps({"prompt": "x"}).encode()
    response = await small.post("/v1/completions", content=body + b" " * (1000 - len(body)), headers=JSON)
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/completions", "POST"),
        ("PUT", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("TRACE", "/health", "GET, HEAD"),
        ("OPTIONS", "/v1/completions", "POST"),
        ("POST", "/v1/models/fake", "GET, HEAD"),
    ],
)
async def test_h16_wrong_method(client: httpx.AsyncClient, method: str, path: str, allowed: str) -> None:
    response = await client.request(method, path)
    check_error(response, 405, "method_not_allowed", None)
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/models/", "/v1/completions/", "//v1/models", "/V1/models", "/v1/models;x", "/pause"],
)
async def test_h16_unknown_path(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(f"http://test{path}")
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"


async def test_unknown_model_by_path(client: httpx.AsyncClient) -> None:
    check_error(await client.get("/v1/models/org/name"), 404, "model_not_found", "model")


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/tokenize", "/v1/responses", "/v1/chat/completions/render"]
)
async def test_templates_of_requests_go_on_a_leash(path: str) -> None:
    """And those of the model do not."""
    engine = FakeEngine(fake_config(trust_request_chat_template=True))
    app = create_app(engine, engine.config.server, engine.config.observe)
    text = {"input": "a"} if path == "/v1/responses" else {"messages": [{"role": "user", "content": "a"}]}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for template in ("{{ messages }}", None):
            response = await client.post(path, json={**text, "chat_template": template})
            assert response.status_code == 200, response.text
    assert engine.tokenizer.runs == [engine.templates.run, None]
