"""Errors as clients see them: one shape, one place that turns exceptions into responses."""

from __future__ import annotations

import logging

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.base.errors import EngineError, ErrorCode, OctavoError, RequestError, Retry

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
"""Seconds a client should wait after 429 or 503: a queue moves within about that."""

INTERNAL_MESSAGE = "The server met an error of its own. The request may be sent again; the log says more."


class ErrorDetail(msgspec.Struct):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorReply(msgspec.Struct):
    """Body of every 4xx and 5xx."""

    error: ErrorDetail


class ClientGone(Exception):
    """The client closed the connection: there is nobody to answer."""


def describe(error: Exception) -> tuple[int, ErrorReply]:
    """HTTP status and body. Exceptions that are not ours become INTERNAL and say nothing of themselves."""
    if isinstance(error, RequestError | EngineError):
        kind = error.code.value
        return kind.status, ErrorReply(
            ErrorDetail(printable(error.message), kind.type, error.param, kind.code)
        )
    kind = ErrorCode.INTERNAL.value
    return kind.status, ErrorReply(ErrorDetail(INTERNAL_MESSAGE, kind.type, None, kind.code))


def error_response(error: Exception) -> Response:
    """The response for an exception, with the headers its status asks for."""
    status, body = describe(error)
    headers = {}
    if isinstance(error, OctavoError) and error.code.value.retry is Retry.LATER:
        headers["retry-after"] = str(RETRY_AFTER_S)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def printable(text: str, limit: int = 2000) -> str:
    """Text that is safe in a body and a log line: no half surrogates, no control characters, not endless."""
    if len(text) > limit:
        text = text[:limit] + "..."
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text)


def quoted(text: str, limit: int = 64) -> str:
    """A caller's word, short and escaped, to be put into a message."""
    return f"'{printable(text, limit)}'"


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: unknown path, wrong method."""
    assert isinstance(error, HTTPException), "registered for HTTPException only"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        ours = RequestError(
            f"{quoted(request.method)} is not allowed here. Allowed: {allowed}.",
            code=ErrorCode.METHOD_NOT_ALLOWED,
        )
        response = error_response(ours)
        response.headers["allow"] = allowed
        return response
    if error.status_code == 404:
        return error_response(
            RequestError("There is nothing at this path. /docs lists what is.", code=ErrorCode.NOT_FOUND)
        )
    return error_response(RequestError("The request is not usable.", code=ErrorCode.INVALID_VALUE))


class Errors:
    """Middleware: what a route raises becomes a response; other exceptions are logged, once."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        has_started = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except ClientGone:
            return
        except Exception as error:
            if not isinstance(error, RequestError | EngineError):
                logger.exception("A route failed")
            if has_started:
                return  # The connection is closed by the missing end of the body.
            await error_response(error)(scope, receive, send)
