"""Streams that go wrong: errors in the middle, clients that leave, readers that stop."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine
from server_live import LiveServer, until
from server_replies import check_error

from octavo.base.errors import EngineError

CHAT = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 50}


def raw_request(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    kind = "Content-Type: application/json"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{kind}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_failure_before_the_first_token_has_its_status(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, stream: bool
) -> None:
    engine.fail_at = 0
    response = await client.post(path, json={**CHAT, "prompt": "x", "stream": stream})
    check_error(response, 500, "engine_failed", None)
    assert engine.num_open == 0


@pytest.mark.parametrize("trouble", ["fail_at", "crash_at"])
async def test_failure_in_the_middle_is_one_last_event(
    client: httpx.AsyncClient, engine: FakeEngine, trouble: str
) -> None:
    setattr(engine, trouble, 3)
    response = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    frames = response.text.strip().split("\n\n")
    assert response.status_code == 200 and frames[-1] == "data: [DONE]"
    error = json.loads(frames[-2].removeprefix("data: "))["error"]
    assert error["code"] == ("engine_failed" if trouble == "fail_at" else "internal_error")
    assert "secret" not in error["message"]
    assert len([frame for frame in frames if '"error"' in frame]) == 1
    assert engine.num_open == 0
    page = (await client.get("/metrics")).text
    assert 'finished_reason="error",model_name="fake"} 1.0' in page


async def test_one_failing_prompt_ends_its_siblings(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.fail_at = 2
    response = await client.post("/v1/completions", json={"prompt": ["a", "b", "c"], "max_tokens": 9})
    check_error(response, 500, "engine_failed", None)
    assert engine.num_open == 0 and engine.num_started == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("stall_at", [0, 3])
@pytest.mark.parametrize("prompt", ["x", ["x", "y"]])
def test_leaving_aborts(
    live: LiveServer, engine: FakeEngine, stream: bool, stall_at: int, prompt: Any
) -> None:
    engine.stall_at = stall_at
    num = len(prompt)
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(raw_request("/v1/completions", {"prompt": prompt, "stream": stream}))
        until(lambda: engine.num_open == num)
        if stream and stall_at:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    until(lambda: engine.num_open == 0)
    assert engine.num_aborted == num
    page = httpx.get(live.url + "/metrics").text
    assert f'finished_reason="abort",model_name="fake"}} {float(num)}' in page
    engine.stall_at = None
    assert httpx.post(live.url + "/v1/completions", json={"prompt": "x"}).status_code == 200


def test_leaving_after_the_answer_aborts_nothing(live: LiveServer, engine: FakeEngine) -> None:
    for stream in (False, True):
        httpx.post(live.url + "/v1/completions", json={"prompt": "x", "stream": stream})
    assert engine.num_aborted == 0 and engine.num_started == 2


def test_leaving_within_the_body_starts_nothing(live: LiveServer, engine: FakeEngine) -> None:
    request = raw_request("/v1/completions", {"prompt": "x"})
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(request[:-3])
    assert httpx.get(live.url + "/livez").status_code == 200
    assert engine.num_started == 0


async def test_an_abort_by_the_engine_is_an_error(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    generate = engine.generate

    async def aborted(*args: Any, **kwargs: Any) -> Any:
        async for output in generate(*args, **kwargs):
            for part in output.outputs:
                part.finish_reason = part.finish_reason and "abort"
            yield output

    engine.generate = aborted  # type: ignore[method-assign]
    response = await client.post("/v1/completions", json={"prompt": "x"})
    check_error(response, 500, "engine_failed", None)


async def test_errors_keep_their_retry_class(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.refuse = EngineError("The engine is dead.")
    response = await client.post("/v1/completions", json={"prompt": "x"})
    assert response.status_code == 500 and "retry-after" not in response.headers
