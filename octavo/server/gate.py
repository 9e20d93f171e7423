"""Gate: before there is an application probes get answers; when it goes clients are told."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.body_writer import SERVER_SEND
from octavo.server.errors import error_response
from octavo.server.paths import route_path


class Gate:
    """Answers /livez at once and everything else with NOT_READY, until `open` puts the application in."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._is_leaving = False

    def open(self, app: ASGIApp) -> None:
        self._app = app

    def leave(self) -> None:
        """From now on each answer is the last one of its connection: the next one goes to another server."""
        self._is_leaving = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is not None:
            scope[SERVER_SEND] = send

            async def last_send(message: Message) -> None:
                if self._is_leaving and message["type"] == "http.response.start":
                    headers = [*message.get("headers", []), (b"connection", b"close")]
                    message = {**message, "headers": headers}
                await send(message)

            try:
                await self._app(scope, receive, last_send)
            finally:
                # uvicorn keeps the scope where `send` is from: a circle, which only the collector would find.
                del scope[SERVER_SEND]
        elif scope["type"] == "http" and route_path(scope) == "/livez":
            await JSONResponse({"status": "starting"})(scope, receive, send)
        elif scope["type"] == "http":
            waiting = EngineError("The model is still being loaded.", code=ErrorCode.NOT_READY)
            await error_response(waiting)(scope, receive, send)
