"""The outermost middleware: gives each request an id of ours, times it, counts it, logs one line."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.base.clock import monotonic
from octavo.observe.log import REFUSALS, log_fields
from octavo.observe.metrics import Metrics
from octavo.observe.request_context import set_request_id
from octavo.server.paths import OPEN_PATHS

logger = logging.getLogger("octavo.access")
refusals = logging.getLogger(REFUSALS)

MAX_CALLER_ID = 128
QUIET_HANDLERS = OPEN_PATHS | {"/metrics"}
"""Asked every few seconds by probes and scrapers: logged only at DEBUG."""


class RequestContext:
    """Middleware. The caller's own X-Request-Id appears only in the log, and only if short and printable."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None, log_requests: bool) -> None:
        self.app = app
        self._metrics = metrics
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _refuse(scope, receive, send)
            return
        request_id = secrets.token_hex(16)
        scope["octavo.request_id"] = request_id
        set_request_id(request_id)
        started = monotonic()
        status = 499  # what proxies log when the client left before an answer

        async def stamped_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = headers["request-id"] = request_id  # OpenAI's name, Anthropic's
            await send(message)

        try:
            await self.app(scope, receive, stamped_send)
        finally:
            self._finish(scope, status, monotonic() - started)

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        handler = getattr(scope.get("route"), "path", "other")
        if self._metrics is not None:
            self._metrics.http(scope["method"], handler, status)
        if not self._log_requests:
            return
        fields: dict[str, Any] = {
            "method": scope["method"][:16],
            "handler": handler,
            "status": status,
            "seconds": round(seconds, 6),
        }
        caller_id = _caller_id(scope)
        if caller_id:
            fields["caller_request_id"] = caller_id
        level = logging.DEBUG if handler in QUIET_HANDLERS and status < 400 else logging.INFO
        log_fields(refusals if 400 <= status < 500 else logger, level, "request", **fields)


def _caller_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and len(value) <= MAX_CALLER_ID and value.isascii():
            text: str = value.decode("ascii")
            return text if text.isprintable() else None
    return None


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """We speak plain HTTP: a WebSocket is closed before it opens."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
