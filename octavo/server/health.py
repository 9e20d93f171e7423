"""/livez: the process runs. /readyz: send requests here. /health: the engine works (vLLM's name)."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.serving import Serving


def health_routes(serving: Serving) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="The process runs")
    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    @router.get("/readyz", summary="Requests are welcome")
    async def readyz(_: Request) -> Response:
        if serving.lifecycle.is_draining:
            raise EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN)
        await _check_engine(serving)
        return JSONResponse({"status": "ok"})

    @router.get("/health", summary="The engine works")
    async def health(_: Request) -> Response:
        await _check_engine(serving)
        return JSONResponse({"status": "ok"})

    return router


async def _check_engine(serving: Serving) -> None:
    try:
        await serving.engine.check_health()
    except EngineError as error:
        # Any failure means the same to a probe: not this server, not now.
        raise EngineError(error.message, code=ErrorCode.NOT_READY) from None
