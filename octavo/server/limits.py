"""How much a client may send, and for how long. Checked while reading: what is over the limit is never held.

Headers and URL are bounded by uvicorn (`run.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import ClientGone
from octavo.server.paths import route_path

BODY_TIMEOUT_S = 60.0
"""A body must be complete after this long."""


class BodyLimit:
    """Middleware: no route reads more than `max_bytes` of a body, but those with a limit of their own."""

    def __init__(self, app: ASGIApp, max_bytes: int, by_path: Mapping[str, int] | None = None) -> None:
        self.app = app
        self._max_bytes = max_bytes
        self._by_path = by_path or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit = self._by_path.get(route_path(scope), self._max_bytes)
        _check_size(_content_length(scope), limit)
        num_bytes = 0

        async def counted_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            if message["type"] == "http.request":
                num_bytes += len(message.get("body", b""))
                _check_size(num_bytes, limit)
            return message

        await self.app(scope, counted_receive, send)


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


def _check_size(num_bytes: int, limit: int) -> None:
    if num_bytes > limit:
        raise RequestError(
            f"The body is larger than {limit} bytes. Send less, or raise the server's limit "
            "(--max-body-bytes, --max-file-bytes).",
            code=ErrorCode.BODY_TOO_LARGE,
        )


def _content_length(scope: Scope) -> int:
    """What the client announces; 0 if nothing. The bytes themselves are counted either way."""
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    if not values:
        return 0
    if len(values) > 1 or not values[0].isdigit():
        raise RequestError("Content-Length is not one plain number.", code=ErrorCode.INVALID_VALUE)
    return int(values[0][:20])
