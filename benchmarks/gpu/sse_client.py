"""A streamed completion over HTTP/1.1, in so little code that the client is never what is measured."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from benchmarks.gpu.measure import check_count
from benchmarks.gpu.workloads import Request

MAX_LINE = 2**20


class Streamed(NamedTuple):
    """One answer; times on the machine's monotonic clock, which all processes share."""

    sent: float
    first: float
    last: float
    tokens: int
    chunks: int


class Connection:
    """A kept-alive connection that serves one request after the other."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"{url!r} is not an http address")
        self._host, self._port = parts.hostname, parts.port or 80
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def complete(self, model: str, request: Request) -> Streamed:
        """Send a request to /v1/completions and read its stream to the end."""
        body = json.dumps(
            {
                "model": model,
                "prompt": request.prompt_token_ids,
                "max_tokens": request.output_len,
                "temperature": 0,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=MAX_LINE)
        assert self._reader is not None, "opened together with the writer"
        sent = time.perf_counter()
        self._writer.write(self._head(len(body)) + body)
        first = last = 0.0
        tokens = chunks = 0
        async for event in _events(self._reader):
            if event.get("choices"):
                last = time.perf_counter()
                first = first or last
                chunks += 1
            usage = event.get("usage")
            if usage:
                tokens = int(usage["completion_tokens"])
        check_count(request, tokens)
        return Streamed(sent, first, last, tokens, chunks)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    def _head(self, length: int) -> bytes:
        return (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        ).encode()


async def _events(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """The JSON of every `data:` line."""
    await _read_head(reader)
    pending = b""
    async for piece in _chunks(reader):
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield json.loads(line[len(b"data: ") :])


async def _read_head(reader: asyncio.StreamReader) -> None:
    """Status and headers. A stream is always chunked; anything else is an error worth showing."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status, _, headers = head.partition("\r\n")
    if status.split()[1] != "200" or "transfer-encoding: chunked" not in headers.lower():
        rest = await asyncio.wait_for(reader.read(300), 5)
        raise RuntimeError(f"the server answered {status!r}: {rest.decode('utf-8', 'replace')}")


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        piece = await reader.readexactly(size + 2)  # with its line end
        if size == 0:
            return
        yield piece[:-2]
