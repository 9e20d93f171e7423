"""Nothing that a client names is fetched or opened: URLs and paths in every field that could hold one.

There are no images, sounds or remote files yet, so each is refused with its place, and nobody is called.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from server_fakes import FakeEngine, fake_config

from octavo.server.app import create_app

URL = "http://127.0.0.1:{port}/secret"
OTHERS = (
    "file:///etc/hostname",
    "ftp://127.0.0.1/x",
    "http://169.254.169.254/latest/meta-data",
    "//127.0.0.1/x",
)


class Canary:
    """A port that counts who calls."""

    def __init__(self) -> None:
        self.num_calls = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.num_calls += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def canary() -> Iterator[Canary]:
    canary = Canary()
    yield canary
    canary.close()


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def in_chat(part: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "/v1/chat/completions", {"messages": user({"type": "text", "text": "what is this?"}, part)}


def in_responses(part: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "/v1/responses", {"input": user({"type": "input_text", "text": "what is this?"}, part)}


def in_messages(part: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return "/v1/messages", {
        "model": "fake",
        "max_tokens": 2,
        "messages": user({"type": "text", "text": "a"}, part),
    }


def asks(url: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """What is asked for, by name."""
    chat = [{"role": "user", "content": "a"}]
    source = {"type": "url", "url": url}
    return {
        "chat image": in_chat({"type": "image_url", "image_url": {"url": url}}),
        "chat image as text": in_chat({"type": "image_url", "image_url": url}),
        "chat video": in_chat({"type": "video_url", "video_url": {"url": url}}),
        "chat audio": in_chat({"type": "audio_url", "audio_url": {"url": url}}),
        "chat sound": in_chat({"type": "input_audio", "input_audio": {"data": url, "format": "wav"}}),
        "chat file": in_chat({"type": "file", "file": {"file_data": url, "file_id": url}}),
        "responses image": in_responses({"type": "input_image", "image_url": url}),
        "responses file": in_responses({"type": "input_file", "file_url": url}),
        "responses file id": in_responses({"type": "input_file", "file_id": url}),
        "responses mcp": (
            "/v1/responses",
            {"input": "a", "tools": [{"type": "mcp", "server_label": "x", "server_url": url}]},
        ),
        "responses search": ("/v1/responses", {"input": "a", "tools": [{"type": "web_search_preview"}]}),
        "responses earlier": ("/v1/responses", {"input": "a", "previous_response_id": url}),
        "messages image": in_messages({"type": "image", "source": source}),
        "messages document": in_messages({"type": "document", "source": source}),
        "messages mcp": (
            "/v1/messages",
            {
                "model": "fake",
                "max_tokens": 2,
                "messages": chat,
                "mcp_servers": [{"type": "url", "url": url}],
            },
        ),
        "messages fetch": (
            "/v1/messages",
            {
                "model": "fake",
                "max_tokens": 2,
                "messages": chat,
                "tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}],
            },
        ),
        "ollama image": ("/api/chat", {"model": "fake", "messages": [{**chat[0], "images": [url]}]}),
        "ollama images": ("/api/generate", {"model": "fake", "prompt": "a", "images": [url]}),
        "ollama create": ("/api/create", {"model": "new", "from": url, "files": {"a": url}}),
        "ollama pull": ("/api/pull", {"model": url, "insecure": True}),
        "ollama push": ("/api/push", {"model": url}),
        "model": ("/v1/completions", {"model": url, "prompt": "a"}),
        "batch": (
            "/v1/batches",
            {"input_file_id": url, "endpoint": "/v1/completions", "completion_window": "24h"},
        ),
        "embeddings": ("/v1/embeddings", {"input": {"image_url": url}}),
        "rerank": ("/v1/rerank", {"query": "a", "documents": [{"image_url": url}]}),
        "template": ("/v1/chat/completions", {"messages": chat, "chat_template": url}),
    }


async def post(path: str, body: Any) -> httpx.Response:
    engine = FakeEngine(fake_config())
    app = create_app(engine, engine.config.server, engine.config.observe)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.post(path, json=body)


@pytest.mark.parametrize("name", asks(""))
async def test_what_names_a_place_is_refused(canary: Canary, name: str) -> None:
    for url in (URL.format(port=canary.port), *OTHERS):
        path, body = asks(url)[name]
        response = await post(path, body)
        assert response.status_code in (400, 404, 501), (url, response.status_code, response.text)
        reply = response.json()
        error = reply.get("error", reply)
        message = error if isinstance(error, str) else error["message"]
        assert len(message) > 10 and message.endswith("."), reply
    assert canary.num_calls == 0


@pytest.mark.parametrize("path", ["/generate", "/v1/completions", "/v1/chat/completions"])
async def test_links_in_text_are_text(canary: Canary, path: str) -> None:
    """Some servers fetch images that a prompt links to in Markdown."""
    text = f"![]({URL.format(port=canary.port)}) <img src='file:///etc/hostname'>"
    body: dict[str, Any] = {"inputs": text, "prompt": text, "messages": [{"role": "user", "content": text}]}
    wanted = {"/generate": "inputs", "/v1/completions": "prompt"}.get(path, "messages")
    response = await post(path, {wanted: body[wanted]})
    assert response.status_code == 200, response.text
    assert "root" not in json.dumps(response.json())
    assert canary.num_calls == 0
