"""The TGI routes byte by byte: events, shapes of errors, everything that is refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from scripted_engine import ScriptedEngine
from server_fakes import FakeEngine, answer_text, fake_config

from octavo.base.errors import EngineError, ErrorCode
from octavo.engine.outputs import CompletionOutput, Logprob, RequestOutput
from octavo.server.app import create_app
from octavo.server.tgi.answer import TgiWriter
from octavo.server.tgi.render import Continuation
from octavo.server.tgi.schema import TgiParameters

PROMPT_IDS = [256, *b"hi"]


def client_of(engine: FakeEngine) -> httpx.AsyncClient:
    app = create_app(engine, engine.config.server, engine.config.observe)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


def events(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = response.text.split("\n\n")
    assert frames[-1] == "" and "[DONE]" not in response.text
    return [json.loads(frame.removeprefix("data:")) for frame in frames[:-1]]


def check_refusal(response: httpx.Response, status: int, kind: str, word: str = "") -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error", "error_type"]
    assert response.json()["error_type"] == kind and word in response.json()["error"], response.text
    for secret in ("Traceback", "object at 0x", "/work", "pydantic", "msgspec"):
        assert secret not in response.text


async def test_shapes(client: httpx.AsyncClient) -> None:
    body = {"inputs": "hi", "parameters": {"max_new_tokens": 2}}
    text = answer_text(PROMPT_IDS, 0, 2)
    assert (await client.post("/generate", json=body)).json() == {"generated_text": text}
    assert (await client.post("/", json=body)).json() == [{"generated_text": text}]
    told = events(await client.post("/", json={**body, "stream": True}))
    assert told == events(await client.post("/generate_stream", json=body))
    first = {"id": ord(text[0]), "text": text[0], "logprob": -1.0, "special": False}
    assert told[0] == {"index": 1, "token": first, "generated_text": None, "details": None}
    assert told[-1]["generated_text"] == text and told[-1]["details"] is None
    full = {"inputs": "hi", "parameters": {"max_new_tokens": 2, "return_full_text": True}}
    assert events(await client.post("/generate_stream", json=full))[-1]["generated_text"] == "hi" + text


async def test_null_means_the_rest_of_the_context(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = {"inputs": "hi", "parameters": {"max_new_tokens": None}}
    assert (await client.post("/generate", json=body)).status_code == 200
    assert engine.seen[-1][1].max_tokens is None


async def test_special_tokens_can_be_left_out(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post("/generate", json={"inputs": "hi", "add_special_tokens": False})
    assert engine.seen[-1][0] == [*b"hi"]


@pytest.mark.parametrize(
    ("finish", "stop", "reason"),
    [("length", None, "length"), ("stop", None, "eos_token"), ("stop", "ab", "stop_sequence")],
)
async def test_finish_reasons(finish: str, stop: str | None, reason: str) -> None:
    output = ready_output(["ab"], [[97, 98]], finish, stop)
    writer = TgiWriter(FakeEngine(fake_config()).tokenizer, asked(details=True))
    reply = writer.reply(output)
    assert not isinstance(reply.details, type(None)) and reply.details.finish_reason == reason  # type: ignore[union-attr]


def asked(**parameters: Any) -> Continuation:
    return Continuation(
        inputs="hi",
        parameters=TgiParameters(**parameters),
        rendered=None,  # type: ignore[arg-type]
        seed=3,
    )


def ready_output(
    texts: list[str], token_ids: list[list[int]], finish: str | None, stop: str | None = None
) -> RequestOutput:
    (text,), (ids,) = texts, token_ids
    part = CompletionOutput(
        index=0,
        text=text,
        token_ids=ids,
        logprobs=[{token_id: Logprob(float("-inf"), 1, None)} for token_id in ids],
        finish_reason=finish,
        stop_reason=stop,
    )
    return RequestOutput(
        request_id="x", prompt=None, prompt_token_ids=PROMPT_IDS, outputs=[part], finished=finish is not None
    )


class ToldSubmission:
    """Outputs as the engine may give them: several tokens at once, text that comes late or at the end."""

    def __init__(self, *told: RequestOutput) -> None:
        self._told = told

    async def outputs(self) -> Any:
        for output in self._told:
            yield 0, output


@pytest.mark.parametrize(
    ("told", "texts"),
    [
        ([("ab", [97, 98], None), ("c", [99], "stop")], ["a", "b", "c"]),
        ([("", [97], None), ("ab", [98], "stop")], ["", "ab"]),
        ([("", [97, 98], None), ("ab?", [99, 257], "stop")], ["", "", "", "ab?"]),
        ([("a", [97], None), ("b", [], "stop")], ["a", "b"]),
        ([("a", [97], None), ("", [257], "stop")], ["a", ""]),
    ],
)
async def test_texts_of_tokens_are_the_answer(told: list[Any], texts: list[str]) -> None:
    writer = TgiWriter(FakeEngine(fake_config()).tokenizer, asked(details=True))
    submission: Any = ToldSubmission(*(ready_output([text], [ids], end) for text, ids, end in told))
    sent = [json.loads(frame.removeprefix(b"data: ")) async for frame in writer.frames(submission)]
    assert [event["token"]["text"] for event in sent] == texts
    assert sent[-1]["generated_text"] == "".join(texts)
    assert sent[-1]["details"]["generated_tokens"] == sum(len(ids) for _, ids, _ in told)
    assert [event["details"] for event in sent[:-1]] == [None] * (len(sent) - 1)
    assert sent[0]["token"]["logprob"] == -9999.0


async def test_special_tokens_are_marked() -> None:
    writer = TgiWriter(FakeEngine(fake_config()).tokenizer, asked())
    submission: Any = ToldSubmission(ready_output([""], [[257]], "stop"))
    sent = [json.loads(frame.removeprefix(b"data: ")) async for frame in writer.frames(submission)]
    assert sent[0]["token"]["special"] is True and sent[0]["generated_text"] == ""


BAD: list[tuple[dict[str, Any], str]] = [
    ({"best_of": 2}, "best_of"),
    ({"watermark": True}, "watermark"),
    ({"adapter_id": "mine"}, "adapter_id"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": "hot"}, "parameters.temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": -5}, "top_k"),
    ({"top_k": 1.5}, "parameters.top_k"),
    ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"max_new_tokens": -1}, "max_new_tokens"),
    ({"max_new_tokens": 10_000}, "max_new_tokens"),
    ({"max_new_tokens": "many"}, "parameters.max_new_tokens"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"frequency_penalty": 3}, "frequency_penalty"),
    ({"stop": "x"}, "parameters.stop"),
    ({"stop": ["x"] * 100}, "parameters.stop"),
    ({"stop": [""]}, "stop"),
    ({"seed": 2**70, "do_sample": True}, "seed"),
    ({"seed": "x"}, "parameters.seed"),
    ({"truncate": 0}, "truncate"),
    ({"truncate": -3}, "truncate"),
    ({"top_n_tokens": 1000, "details": True}, "top_n_tokens"),
    ({"top_n_tokens": -2, "details": True}, "top_n_tokens"),
    ({"do_sample": "yes"}, "parameters.do_sample"),
    ({"details": 1}, "parameters.details"),
    ({"grammar": "json"}, "parameters.grammar"),
    ({"grammar": {"type": "poem", "value": "x"}}, "parameters.grammar.type"),
    ({"grammar": {"type": "regex", "value": 3}}, "grammar.value"),
    ({"grammar": {"type": "json", "value": "{"}}, "grammar.value"),
    ({"grammar": {"type": "json", "value": [1]}}, "grammar.value"),
    ({"grammar": {"type": "json_schema", "value": {}}}, "grammar.value"),
    ({f"field{n}": n for n in range(300)}, "at most 256"),
]


@pytest.mark.parametrize(("parameters", "word"), BAD)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
async def test_bad_parameters(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, parameters: Any, word: str
) -> None:
    response = await client.post(path, json={"inputs": "hi", "parameters": parameters})
    check_refusal(response, 422, "validation", word)
    assert engine.num_started == 0


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": ["hi"]}, "inputs"),
        ({"inputs": 5}, "inputs"),
        ({"inputs": "x" * 600}, "tokens"),
        ({"inputs": "x" * 50_000}, "characters"),
        ({"inputs": "hi", "parameters": []}, "parameters"),
        ({"inputs": "hi", "parameters": "x"}, "parameters"),
        ({"inputs": "hi", "stream": "yes"}, "stream"),
    ],
)
async def test_bad_bodies(client: httpx.AsyncClient, engine: FakeEngine, body: Any, word: str) -> None:
    for path in ("/generate", "/generate_stream", "/"):
        check_refusal(await client.post(path, json=body), 422, "validation", word)
    assert engine.num_started == 0


async def test_prompt_details_do_not_come_in_streams(client: httpx.AsyncClient) -> None:
    body = {"inputs": "hi", "parameters": {"decoder_input_details": True}}
    refused = await client.post("/generate_stream", json=body)
    check_refusal(refused, 422, "validation", "decoder_input_details")
    reply = (await client.post("/generate", json=body)).json()
    assert len(reply["details"]["prefill"]) == 3


async def test_malformed_bodies(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    for content in (b"", b"[]", b'{"inputs": "x"', b"\xff", b'{"a":' + b"[" * 500 + b"]" * 500 + b"}"):
        check_refusal(await client.post("/generate", content=content, headers=headers), 422, "validation")
    plain = await client.post("/generate", content=b"{}", headers={"content-type": "text/plain"})
    check_refusal(plain, 415, "unsupported_media_type")


async def test_an_error_in_a_stream_is_its_last_event(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.crash_at = 1
    told = events(await client.post("/generate_stream", json={"inputs": "hi"}))
    assert list(told[-1]) == ["error", "error_type"] and "secret" not in told[-1]["error"]
    assert told[-1]["error_type"] == "incomplete_generation" and engine.num_open == 0


async def test_errors_around_the_routes() -> None:
    engine = FakeEngine(fake_config(api_key=["key"]))
    client = client_of(engine)
    body = {"inputs": "hi"}
    check_refusal(await client.post("/generate", json=body), 401, "invalid_api_key")
    headers = {"authorization": "Bearer key"}
    check_refusal(await client.put("/generate", headers=headers), 405, "method_not_allowed")
    engine.refuse = EngineError("Too many requests wait.", code=ErrorCode.OVERLOADED)
    busy = await client.post("/generate_stream", json=body, headers=headers)
    check_refusal(busy, 429, "overloaded")
    assert busy.headers["retry-after"] == "1"
    engine.refuse = EngineError("Going home.", code=ErrorCode.SHUTTING_DOWN)
    check_refusal(await client.post("/generate", json=body, headers=headers), 503, "overloaded")


async def test_info() -> None:
    engine = FakeEngine(fake_config(dtype="bfloat16", device="cuda", max_num_seqs=32))
    info = (await client_of(engine).get("/info")).json()
    assert info["model_id"] == "fake" and info["model_pipeline_tag"] == "text-generation"
    assert (info["max_input_tokens"], info["max_total_tokens"]) == (511, 512)
    assert (info["max_concurrent_requests"], info["max_best_of"]) == (32, 1)
    assert info["model_dtype"] == "torch.bfloat16" and info["model_device_type"] == "cuda"
    assert {"max_stop_sequences", "validation_workers", "max_client_batch_size", "sha"} <= set(info)


async def test_an_empty_answer_has_a_last_event() -> None:
    engine = ScriptedEngine(fake_config(), script="")
    response = await client_of(engine).post("/generate", json={"inputs": "hi"})
    assert response.json() == {"generated_text": ""}
