"""Errors as clients see them: one shape per protocol, one place that turns exceptions into responses."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.base.errors import EngineError, ErrorCode, OctavoError, RequestError, Retry
from octavo.server.paths import route_path

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 1
"""Seconds a client should wait after 429 or 503 that do not say better: a queue moves within about that."""

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


ErrorShape = Callable[[Exception], tuple[int, msgspec.Struct]]
"""HTTP status and body of an exception, as one protocol says it."""

SCOPE_KEY = "octavo.error_shape"
"""Where in the scope the shape of a request's protocol is found."""


def describe(error: Exception) -> tuple[int, ErrorReply]:
    """HTTP status and body. Exceptions that are not ours become INTERNAL and say nothing of themselves."""
    if isinstance(error, RequestError | EngineError):
        kind = error.code.value
        return kind.status, ErrorReply(
            ErrorDetail(printable(error.message), kind.type, error.param, kind.code)
        )
    kind = ErrorCode.INTERNAL.value
    return kind.status, ErrorReply(ErrorDetail(INTERNAL_MESSAGE, kind.type, None, kind.code))


def error_response(error: Exception, shape: ErrorShape = describe) -> Response:
    """The response for an exception, with the headers its status asks for."""
    status, body = shape(error)
    headers = {}
    if isinstance(error, OctavoError) and error.code.value.retry is Retry.LATER:
        headers["retry-after"] = str(max(RETRY_AFTER_S, math.ceil(error.retry_after_s or 0.0)))
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
    shape: ErrorShape = request.scope.get(SCOPE_KEY, describe)
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request)))
        ours = RequestError(
            f"{quoted(request.method)} is not allowed here. Allowed: {allowed}.",
            code=ErrorCode.METHOD_NOT_ALLOWED,
        )
        response = error_response(ours, shape)
        response.headers["allow"] = allowed
        return response
    if error.status_code == 404:
        return error_response(
            RequestError("There is nothing at this path. /docs lists what is.", code=ErrorCode.NOT_FOUND),
            shape,
        )
    return error_response(RequestError("The request is not usable.", code=ErrorCode.INVALID_VALUE), shape)


def _methods(request: Request) -> set[str]:
    """All that the path has; the router itself names only those of the first route with that path."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return methods


class Errors:
    """Middleware: what a route raises becomes a response; other exceptions are logged, once.

    `shapes` says by path (or, for keys that end in '/', by how the path begins) which protocol a request
    speaks; all other paths speak OpenAI's.
    """

    def __init__(self, app: ASGIApp, shapes: Mapping[str, ErrorShape] | None = None) -> None:
        self.app = app
        self._by_path = dict(shapes or {})
        self._by_prefix = [(path, shape) for path, shape in self._by_path.items() if path[1:].endswith("/")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        shape = scope[SCOPE_KEY] = self._shape_for(route_path(scope))
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
            await error_response(error, shape)(scope, receive, send)

    def _shape_for(self, path: str) -> ErrorShape:
        known = self._by_path.get(path)
        if known is not None:
            return known
        return next((shape for prefix, shape in self._by_prefix if path.startswith(prefix)), describe)
