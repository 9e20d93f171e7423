"""An event is one line for every client, whatever ends lines for it and whatever the model says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import ollama
import pytest
from scripted_engine import ScriptedEngine
from server_fakes import fake_config
from server_live import LiveServer

from octavo.server.line_json import line_json

SAID = "one\u2028two\u2029three\x85four\x0b\x0c\x1c\x1d\x1e five\r\n“six” \u00c2 \u20ac"


@pytest.fixture
def server() -> Iterator[LiveServer]:
    server = LiveServer(ScriptedEngine(fake_config(), script=SAID))
    yield server
    server.stop()


def test_nothing_in_a_line_ends_it() -> None:
    everything = "".join(map(chr, (*range(0x3000), *range(0x1F600, 0x1F610))))
    data = line_json({"text": everything})
    assert len(data.decode().splitlines()) == 1
    assert json.loads(data) == {"text": everything}


HELLO = [{"role": "user", "content": "x"}]


def test_ollamas_client_reads_it(server: LiveServer) -> None:
    parts = ollama.Client(server.url).chat("fake", HELLO, stream=True)
    assert "".join(part.message.content or "" for part in parts) == SAID


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HELLO}),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 9}),
        ("/api/generate", {"prompt": "x"}),
    ],
)
def test_every_stream_is_read_by_lines(server: LiveServer, path: str, body: dict[str, Any]) -> None:
    with httpx.stream("POST", server.url + path, json={"model": "fake", "stream": True, **body}) as response:
        lines = [line for line in response.iter_lines() if line and not line.startswith("event:")]
    texts = [line.removeprefix("data: ") for line in lines]
    assert all(json.loads(text) for text in texts if text != "[DONE]")
    assert all(escape in "".join(texts) for escape in (r"\u2028", r"\u2029", r"\u0085"))
