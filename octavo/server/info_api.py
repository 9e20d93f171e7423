"""GET /version and /metrics: what runs here and how it fares. No path, prompt or key ever shows."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.openapi import described
from octavo.server.replies import json_reply
from octavo.server.serving import Serving


class VersionReply(msgspec.Struct):
    """The version of Octavo."""

    version: str


def info_routes(serving: Serving) -> APIRouter:
    router = APIRouter(tags=["info"])

    @router.get("/version", summary="The version of this server", **described(VersionReply))
    async def version(_: Request) -> Response:
        return json_reply(VersionReply(serving.version))

    @router.get("/metrics", summary="Metrics for Prometheus")
    async def metrics(request: Request) -> Response:
        if serving.metrics is None:
            raise RequestError("Metrics are switched off (--disable-metrics).", code=ErrorCode.NOT_FOUND)
        page, content_type = serving.metrics.render(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})

    return router
