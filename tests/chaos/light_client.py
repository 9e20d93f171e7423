"""An HTTP client that costs next to nothing: bytes go out, bytes come in, times are kept.

It understands what Octavo's server sends: a length, or chunks of a stream. What a client library would
add is not measured with it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HEAD_END = b"\r\n\r\n"
STREAM_END = b"\r\n0\r\n\r\n"


@dataclass
class Reply:
    """One answer as it came. Times are of the monotonic clock."""

    asked_at: float
    data: bytearray = field(default_factory=bytearray)
    """Head and body, chunks as they were sent."""
    first_at: float | None = None
    """Of the first byte of the body."""
    ended_at: float | None = None
    is_whole: bool = False
    """It came to its end; else the connection was lost, or left."""
    _body_at: int = 0
    _length: int | None = None

    @property
    def status(self) -> int:
        """0 when not even the first line came."""
        return int(self.data[9:12] or b"0")

    @property
    def head(self) -> bytes:
        return bytes(self.data[: self._body_at]).lower()

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n"):
            if line.startswith(name.encode() + b":"):
                return line.partition(b":")[2].strip().decode()
        return None

    def body(self) -> bytes:
        """Without the frames of chunks."""
        raw = bytes(self.data[self._body_at :])
        if self._length is not None:
            return raw
        parts, place = [], 0
        while (line_end := raw.find(b"\r\n", place)) >= 0:
            length = int(raw[place:line_end], 16)
            parts.append(raw[line_end + 2 : line_end + 2 + length])
            place = line_end + 2 + length + 2
        return b"".join(parts)

    def events(self) -> list[str]:
        """What a stream of events said."""
        lines = self.body().decode().splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    def take(self, data: bytes, now: float) -> None:
        self.data += data
        if not self._body_at:
            head_end = self.data.find(HEAD_END)
            if head_end < 0:
                return
            self._body_at = head_end + len(HEAD_END)
            length = self.header("content-length")
            self._length = None if length is None else int(length)
        num_body = len(self.data) - self._body_at
        if self.first_at is None and num_body:
            self.first_at = now
        if self._length is None:
            self.is_whole = self.data.endswith(STREAM_END)
        else:
            self.is_whole = num_body >= self._length


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.is_open = False
        self._done: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        """To this machine. Raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    async def ask(self, request: bytes) -> Reply:
        """Send it and wait for the end, of the answer or of the connection."""
        assert self._transport is not None, "connected"
        self._done = asyncio.get_running_loop().create_future()
        self.reply = Reply(time.monotonic())
        self._transport.write(request)
        await self._done
        return self.reply

    def leave(self) -> None:
        """Close it now, as a client does whose user has gone."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self.reply is None or self.reply.is_whole:
            return
        self.reply.take(data, time.monotonic())
        if self.reply.is_whole:
            if self.reply.header("connection") == "close":
                self.leave()
            self._finish()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._finish()

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            assert self.reply is not None
            self.reply.ended_at = time.monotonic()
            self._done.set_result(None)


def post(path: str, body: Mapping[str, Any] | bytes, *, headers: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a POST of JSON, or of `body` as it is."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"host": "x", "content-type": "application/json", **(headers or {}), "content-length": len(data)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + data


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


async def fetch(port: int, request: bytes, timeout_s: float = 10.0) -> Reply:
    """One request on a connection of its own. A server that is not there gives a reply without a status."""
    try:
        async with asyncio.timeout(timeout_s):
            connection = await Connection.open(port)
            try:
                return await connection.ask(request)
            finally:
                connection.leave()
    except (OSError, TimeoutError):
        return Reply(time.monotonic())
