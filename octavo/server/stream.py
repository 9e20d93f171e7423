"""Streams: frames of server-sent events, the response that sends frames of any kind, and what ends it.

Hot path: one `frame` per streamed token. Nothing here logs or looks anything up per frame.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from octavo.base.errors import EngineError, RequestError
from octavo.server.body_writer import body_writer
from octavo.server.disconnect import end_tasks, until_disconnected
from octavo.server.errors import describe
from octavo.server.line_json import line_json

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def frame(event: Any) -> bytes:
    """One event as bytes."""
    return b"data: " + line_json(event) + b"\n\n"


class ChunkFrames:
    """Frames of events that differ in their one choice only: the rest is encoded once."""

    def __init__(self, event: Any) -> None:
        """`event` has an empty list of choices."""
        before, _, after = line_json(event).partition(b'"choices":[]')
        self._before = b"data: " + before + b'"choices":['
        self._after = b"]" + after + b"\n\n"

    def frame(self, choice: Any) -> bytes:
        return b"%b%b%b" % (self._before, line_json(choice), self._after)


def error_event(error: Exception) -> bytes:
    """An error in the midst of a stream, in the error shape of the OpenAI API."""
    return frame(describe(error)[1])


class EventStream(Response):
    """Sends frames until they end or the client is gone; then `ending`.

    It begins only once the first frame exists, so that an error before it is raised and gets its status.
    An error after it becomes one last frame, made by `error_frame`. The defaults are the OpenAI API's.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        frames: AsyncGenerator[bytes, None],
        *,
        media_type: str | None = None,
        error_frame: Callable[[Exception], bytes] = error_event,
        ending: bytes = DONE,
    ) -> None:
        super().__init__(
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"}, media_type=media_type
        )
        del self.headers["content-length"]
        self._frames = frames
        self._error_frame = error_frame
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":  # Who follows nothing waits for no end.
            await self._frames.aclose()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})
            return
        sender = asyncio.create_task(self._send_all(scope, send))
        watcher = asyncio.create_task(until_disconnected(receive))
        try:
            await asyncio.wait({sender, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
        finally:
            await end_tasks(sender, watcher)
            # Closing the frames aborts what the engine still runs for them.
            await self._frames.aclose()

    async def _send_all(self, scope: Scope, send: Send) -> None:
        first = await anext(self._frames, None)
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        write = body_writer(scope, send)
        if first is not None:
            await write(first)
        try:
            async for data in self._frames:
                await write(data)
        except Exception as error:
            if not isinstance(error, RequestError | EngineError):
                logger.exception("A stream failed")
            await write(self._error_frame(error))
        if self._ending:
            await write(self._ending)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
