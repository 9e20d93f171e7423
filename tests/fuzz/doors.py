"""Request bodies of strangers, through the whole application and out again, without a socket.

Whatever a body holds: an answer or a typed refusal in its protocol's shape, streams that end, nothing open
behind it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import json_mutator
from tests.fuzz.target import Run, Target
from tests.server.server_fakes import FakeEngine, fake_config

ANSWERS = {*range(200, 500), 501, 503}
"""501 is what this server does not do, 503 what it cannot do now. 500 is a bug."""
MAX_DEPTH = 64

Calls = Mapping[str, list[dict[str, Any]]]
"""By path: honest bodies."""


WAIT_S = 60.0
"""By the clock. How long it may compute is for watch.py to say."""


class Door:
    """One application in an event loop of its own; the first byte of an input chooses the path."""

    def __init__(
        self, app: Any, paths: list[str], num_open: Callable[[], int], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._app = app
        self._paths = paths
        self._num_open = num_open
        self._loop = loop

    def __call__(self, data: bytes) -> None:
        if data:
            self._loop.run_until_complete(self.post(self._paths[data[0] % len(self._paths)], data[1:]))

    async def post(
        self, path: str, body: bytes, content_type: bytes = b"application/json"
    ) -> tuple[int, bytes]:
        status, headers, said = await asyncio.wait_for(self._exchange(path, body, content_type), WAIT_S)
        kind = headers.get(b"content-type", b"").decode()
        assert status in ANSWERS, (path, status, said[:500])
        if kind.startswith("text/event-stream"):
            _check_events(said)
        elif kind.startswith("application/x-ndjson"):
            for line in said.splitlines():
                json.loads(line)
        elif kind.startswith("application/json") and said:
            _check_reply(status, json.loads(said))
        for _ in range(50):
            if not self._num_open():
                break
            await asyncio.sleep(0.001)
        assert not self._num_open(), "a request stays open"
        return status, said

    async def _exchange(
        self, path: str, body: bytes, content_type: bytes
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(b"host", b"test"), (b"content-type", content_type)],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
        }  # fmt: skip
        half = len(body) // 2
        pieces = [body[:half], body[half:]]
        never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        status, headers, said, is_over = 0, {}, [], False

        async def receive() -> Any:
            if pieces:
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}
            return await never

        async def send(message: Any) -> None:
            nonlocal status, headers, is_over
            if message["type"] == "http.response.start":
                status, headers = message["status"], dict(message["headers"])
            else:
                said.append(message.get("body", b""))
                is_over = not message.get("more_body", False)

        await self._app(scope, receive, send)
        assert status and is_over, "the answer does not end"
        return status, headers, b"".join(said)


def _check_reply(status: int, reply: Any) -> None:
    if status < 400:
        return
    error = reply.get("error", reply)
    message = error.get("message") if isinstance(error, dict) else error
    assert isinstance(message, str) and message, reply
    for secret in ("Traceback", "object at 0x", "/tests/", "pydantic", "msgspec"):
        # What a caller wrote may be quoted: 64 characters of it.
        assert secret not in message or "'" in message, reply


def _check_events(said: bytes) -> None:
    text = said.decode()
    assert text.endswith("\n\n"), text[-200:]
    events = [event for event in text.split("\n\n") if event]
    assert events
    for event in events:
        for line in event.split("\n"):
            if line.startswith("data:") and line[5:].strip() != "[DONE]":
                document = json.loads(line[5:])
                error = document.get("error") if isinstance(document, dict) else None
                code = error.get("code") if isinstance(error, dict) else None
                assert code != "internal_error", document


def words_in(page: Any) -> list[str]:
    """Names and choices in an OpenAPI page."""
    found: set[str] = set()
    waiting = [page]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            properties = part.get("properties")
            if isinstance(properties, dict):
                found.update(properties)
            found.update(word for word in (*part.get("enum", ()), part.get("const")) if isinstance(word, str))
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return sorted(found)


def fake_app(**options: Any) -> tuple[Any, FakeEngine]:
    from octavo.server.app import create_app

    engine = FakeEngine(fake_config(**options))
    return create_app(engine, engine.config.server, engine.config.observe), engine


def door_target(calls: Calls) -> Target:
    """A target for the paths of one protocol, in front of the fake engine."""
    paths = list(calls)

    def opened(folder: Path) -> Run:
        app, engine = fake_app(trust_request_chat_template=True)
        return Door(app, paths, lambda: engine.num_open, asyncio.new_event_loop())

    def seeds() -> Iterator[bytes]:
        for index, path in enumerate(paths):
            for body in calls[path]:
                yield bytes([index]) + json.dumps(body).encode()

    app, _ = fake_app()
    return Target(
        open=opened, seeds=seeds, mutate=json_mutator(words_in(app.openapi()), head=1), max_bytes=8192
    )
