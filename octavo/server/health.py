"""/livez: the process runs. /readyz: send requests here. /health: the engine works (vLLM's name)."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply
from octavo.server.serving import Serving


class HealthReply(msgspec.Struct):
    """All is well; otherwise the status is 503."""

    status: str


def add_health_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.get("/livez", tags=["health"], summary="The process runs", **page.describe(HealthReply))
    async def livez(_: Request) -> Response:
        return json_reply(HealthReply("ok"))

    @app.get("/readyz", tags=["health"], summary="Requests are welcome", **page.describe(HealthReply))
    async def readyz(_: Request) -> Response:
        if serving.lifecycle.is_draining:
            raise EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN)
        serving.engine.check_welcome()
        await check_engine(serving)
        return json_reply(HealthReply("ok"))

    @app.get("/health", tags=["health"], summary="The engine works", **page.describe(HealthReply))
    async def health(_: Request) -> Response:
        await check_engine(serving)
        return json_reply(HealthReply("ok"))


async def check_engine(serving: Serving) -> None:
    """Raise NOT_READY unless the engine works."""
    try:
        await serving.engine.check_health()
    except EngineError as error:
        # Any failure means the same to a probe: not this server, not now.
        raise EngineError(error.message, code=ErrorCode.NOT_READY) from None
