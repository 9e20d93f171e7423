"""Gate: the application while there is none yet. Probes get answers from the first second on."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.body_writer import SERVER_SEND
from octavo.server.errors import error_response
from octavo.server.paths import route_path


class Gate:
    """Answers /livez at once and everything else with NOT_READY, until `open` puts the application in."""

    def __init__(self) -> None:
        self._app: ASGIApp | None = None

    def open(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is not None:
            scope[SERVER_SEND] = send
            try:
                await self._app(scope, receive, send)
            finally:
                # uvicorn keeps the scope where `send` is from: a circle, which only the collector would find.
                del scope[SERVER_SEND]
        elif scope["type"] == "http" and route_path(scope) == "/livez":
            await JSONResponse({"status": "starting"})(scope, receive, send)
        elif scope["type"] == "http":
            waiting = EngineError("The model is still being loaded.", code=ErrorCode.NOT_READY)
            await error_response(waiting)(scope, receive, send)
