"""The bytes of a stream: chunks made from parts, and bodies that go past the server's own framing."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine
from server_live import LiveServer

from octavo.server.openai.schema.completion import CompletionChoice, CompletionReply
from octavo.server.stream import ChunkFrames, frame


@pytest.mark.parametrize(
    "text",
    ["", "plain", 'a "quote" \\ \n', '"choices":[]', "ü€😀"],
)
@pytest.mark.parametrize("model", ["m", '{"choices":[]}'])
def test_a_chunk_from_parts_is_the_whole_chunk(text: str, model: str) -> None:
    def event(*choices: CompletionChoice) -> CompletionReply:
        return CompletionReply(id="x", created=1, model=model, choices=list(choices), system_fingerprint="f")

    choice = CompletionChoice(3, text, None, "length", "stop")
    assert ChunkFrames(event()).frame(choice) == frame(event(choice))


BODY: dict[str, Any] = {
    "prompt": "x",
    "max_tokens": 30,
    "stream": True,
    "stream_options": {"include_usage": True},
}


async def test_past_the_framing_and_through_it_say_the_same(
    live: LiveServer, client: httpx.AsyncClient
) -> None:
    def events(text: str) -> list[Any]:
        lines = text.strip().split("\n\n")
        assert lines[-1] == "data: [DONE]"
        return [{**json.loads(line[6:]), "id": 0, "created": 0} for line in lines[:-1]]

    for path, body in (
        ("/v1/completions", BODY),
        ("/v1/completions", {**BODY, "n": 3, "prompt": ["x", "y"]}),
        ("/v1/chat/completions", {**BODY, "messages": [{"role": "user", "content": "x"}], "n": 2}),
    ):
        direct, plain = httpx.post(live.url + path, json=body), await client.post(path, json=body)
        assert direct.headers["transfer-encoding"] == "chunked"
        assert sorted(map(str, events(direct.text))) == sorted(map(str, events(plain.text)))


def test_the_connection_goes_on_after_a_stream(live: LiveServer) -> None:
    with httpx.Client(base_url=live.url) as client:
        for _ in range(3):
            assert client.post("/v1/completions", json=BODY).text.endswith("data: [DONE]\n\n")
            assert client.get("/livez").status_code == 200


def test_an_old_client_gets_a_body_without_chunks(live: LiveServer, engine: FakeEngine) -> None:
    data = json.dumps(BODY).encode()
    kind = "Content-Type: application/json"
    head = f"POST /v1/completions HTTP/1.0\r\nHost: x\r\n{kind}\r\nContent-Length: {len(data)}"
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    body = answer.partition(b"\r\n\r\n")[2]
    assert body.startswith(b"data: {") and body.endswith(b"}\n\ndata: [DONE]\n\n")
    assert engine.num_aborted == 0
