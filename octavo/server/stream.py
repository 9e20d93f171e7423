"""Server-sent events: frames, the response that sends them, and what ends it.

Hot path: one `frame` per streamed token. Nothing here logs or looks anything up per frame.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.base.clock import monotonic
from octavo.base.errors import EngineError, RequestError
from octavo.server.disconnect import end_tasks, until_disconnected
from octavo.server.errors import describe

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
STALL_CHECK_S = 5.0
SEND_STALL_S = 60.0
"""A client that takes nothing for this long loses its stream, so that it cannot hold blocks for ever."""

_encode = msgspec.json.Encoder().encode


def frame(event: Any) -> bytes:
    """One event as bytes."""
    return b"data: " + _encode(event) + b"\n\n"


async def guarded(frames: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """`frames`, then [DONE]. An error after the first frame becomes one last event in the error shape."""
    has_begun = False
    try:
        async for data in frames:
            has_begun = True
            yield data
    except Exception as error:
        if not has_begun:
            raise  # Nothing was sent: the caller can still give the true status.
        if not isinstance(error, RequestError | EngineError):
            logger.exception("A stream failed")
        yield frame(describe(error)[1])
    yield DONE


async def event_stream(frames: AsyncGenerator[bytes, None]) -> EventStream:
    """A response that begins only once the first frame exists; errors before it are raised here."""
    stream = guarded(frames)
    try:
        first = await anext(stream)
    except BaseException:
        await frames.aclose()
        raise
    return EventStream(first, stream, frames)


class EventStream(Response):
    """Sends frames until they end, the client leaves, or the client stops reading."""

    media_type = "text/event-stream"

    def __init__(
        self, first: bytes, rest: AsyncGenerator[bytes, None], source: AsyncGenerator[bytes, None]
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest
        self._source = source
        self._sending_since: float | None = None

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        sender = asyncio.create_task(self._send_all(send))
        watcher = asyncio.create_task(until_disconnected(receive))
        try:
            while not sender.done() and not watcher.done() and not self._is_stalled():
                await asyncio.wait(
                    {sender, watcher}, timeout=STALL_CHECK_S, return_when=asyncio.FIRST_COMPLETED
                )
            if sender.done():
                sender.result()
        finally:
            await end_tasks(sender, watcher)
            # Closing the source aborts what the engine still runs for it.
            await self._rest.aclose()
            await self._source.aclose()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._send_frame(send, self._first)
        async for data in self._rest:
            await self._send_frame(send, data)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_frame(self, send: Send, data: bytes) -> None:
        self._sending_since = monotonic()
        await send({"type": "http.response.body", "body": data, "more_body": True})
        self._sending_since = None

    def _is_stalled(self) -> bool:
        return self._sending_since is not None and monotonic() - self._sending_since > SEND_STALL_S
