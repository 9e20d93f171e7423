"""How much a client may send, and for how long. Checked while reading: what is over the limit is never held.

Headers and URL are bounded by uvicorn (`run.py`).
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import ClientGone

BODY_TIMEOUT_S = 60.0
"""A body must be complete after this long."""


class BodyLimit:
    """Middleware: no route reads more than `max_bytes` of a body."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._check(_content_length(scope))
        num_bytes = 0

        async def counted_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            if message["type"] == "http.request":
                num_bytes += len(message.get("body", b""))
                self._check(num_bytes)
            return message

        await self.app(scope, counted_receive, send)

    def _check(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise RequestError(
                f"The body is larger than {self._max_bytes} bytes. Send less, or raise --max-body-bytes.",
                code=ErrorCode.BODY_TOO_LARGE,
            )


async def read_body(receive: Receive) -> bytes:
    """The whole body. Raises ClientGone if the client leaves before its end."""
    chunks: list[bytes] = []
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunks.append(message.get("body", b""))
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise RequestError(
            f"The body was not complete after {BODY_TIMEOUT_S:.0f} s.", code=ErrorCode.REQUEST_TIMEOUT
        ) from None


def _content_length(scope: Scope) -> int:
    """What the client announces; 0 if nothing. The bytes themselves are counted either way."""
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    if not values:
        return 0
    if len(values) > 1 or not values[0].isdigit():
        raise RequestError("Content-Length is not one plain number.", code=ErrorCode.INVALID_VALUE)
    return int(values[0][:20])
