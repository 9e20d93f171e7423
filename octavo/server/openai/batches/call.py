"""A call that the server makes to itself: through the whole application, so that every check applies."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message

from octavo.server.auth import OWNER


@dataclass
class Reply:
    """What a route answered."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)

    @property
    def request_id(self) -> str:
        return self.headers.get(b"x-request-id", b"").decode("latin-1")


async def post(app: ASGIApp, path: str, body: bytes, owner: str) -> Reply:
    """POST a JSON body on behalf of `owner`. Cancelling it is like a client that leaves."""
    reply = Reply()
    unread = [body]

    async def receive() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await asyncio.Event().wait()  # This client stays until it is cancelled.
        raise AssertionError("nobody sets the event")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {name.lower(): value for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            reply.body += message.get("body", b"")

    await app(_scope(path, body, owner), receive, send)
    return reply


def _scope(path: str, body: bytes, owner: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
        "client": None,
        "server": None,
        OWNER: owner,
    }
