"""GET /version, /load and /metrics: what runs here and how it fares. No path, prompt or key ever shows."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply
from octavo.server.serving import Serving


class LoadReply(msgspec.Struct):
    """How busy the engine is. The first field is vLLM's."""

    server_load: int
    """Answers that run or wait."""
    running: int
    waiting: int
    kv_usage: float
    """Share of the KV cache that they hold, 0 to 1."""


class VersionReply(msgspec.Struct):
    """The version of Octavo."""

    version: str


def add_info_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.get("/version", tags=["info"], summary="The version of this server", **page.describe(VersionReply))
    async def version(_: Request) -> Response:
        return json_reply(VersionReply(serving.version))

    @app.get("/load", tags=["info"], summary="How busy the engine is", **page.describe(LoadReply))
    async def load(_: Request) -> Response:
        stats = serving.engine.stats()
        running, waiting = stats.num_running, stats.num_waiting
        return json_reply(LoadReply(running + waiting, running, waiting, round(stats.kv_usage, 4)))

    @app.get("/metrics", tags=["info"], summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        if serving.metrics is None:
            raise RequestError("Metrics are switched off (--disable-metrics).", code=ErrorCode.NOT_FOUND)
        page, content_type = serving.metrics.render(request.headers.get("accept", ""))
        return Response(page, headers={"content-type": content_type})
