"""A small OpenAI-style server on a free loopback port, which remembers what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

WORDS = ["one ", "two ", "three ", "four ", "five "]


@dataclass
class FakeServer:
    """`fail_after`: requests that succeed before each later one gets a 500."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    key: str | None = None
    fail_after: int | None = None
    cut: bool = False
    thought: str | None = None
    most_at_once: int = 0
    now: int = 0
    delay_s: float = 0.0

    def models(self, request: Request) -> Response:
        return self._refuse(request) or JSONResponse({"object": "list", "data": [{"id": "fake-model"}]})

    async def answer(self, request: Request) -> Response:
        refused = self._refuse(request)
        if refused is not None:
            return refused
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.fail_after is not None and len(self.bodies) > self.fail_after:
            return JSONResponse({"error": {"message": "out of luck", "code": "internal_error"}}, 500)
        return StreamingResponse(self._events(body), media_type="text/event-stream")

    async def _events(self, body: dict[str, Any]) -> Any:
        import asyncio

        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            is_chat = "messages" in body
            count = body.get("max_tokens") or len(WORDS)
            if is_chat:
                yield _event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
                if self.thought:
                    yield _event({"choices": [{"index": 0, "delta": {"reasoning_content": self.thought}}]})
            for index in range(count):
                word = WORDS[index % len(WORDS)]
                await asyncio.sleep(self.delay_s)
                piece = {"delta": {"content": word}} if is_chat else {"text": word}
                yield _event({"choices": [{"index": 0, **piece}]})
                if self.cut:
                    return
            yield _event({"choices": [{"index": 0, "delta": {}, "text": "", "finish_reason": "length"}]})
            usage = {"prompt_tokens": 7, "completion_tokens": count}
            usage["prompt_tokens_details"] = {"cached_tokens": 3}
            yield _event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
        finally:
            self.now -= 1

    def _refuse(self, request: Request) -> Response | None:
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return JSONResponse({"error": {"message": "The API key is wrong."}}, 401)


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@pytest.fixture
def fake_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.delenv("OCTAVO_API_KEY", raising=False)
    fake = FakeServer()
    routes = [
        Route("/v1/models", fake.models),
        Route("/v1/completions", fake.answer, methods=["POST"]),
        Route("/v1/chat/completions", fake.answer, methods=["POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.005)
    fake.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield fake
    server.should_exit = True
    thread.join(timeout=10)
