"""The administrative routes."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

import octavo
from octavo.base.errors import RequestError
from octavo.config.admin import AdminConfig
from octavo.engine.rest import LEVELS, MODES
from octavo.observe.loop_lag import LoopLag
from octavo.server.admin.abort import abort_requests
from octavo.server.admin.accounting import accounting
from octavo.server.admin.info import server_info
from octavo.server.admin.port import AdminPort
from octavo.server.admin.profile import Profiles
from octavo.server.admin.schema import (
    AbortBody,
    AbortReply,
    Accounting,
    Done,
    LogLevelBody,
    PauseReply,
    ProfileReply,
    ServerInfo,
    SleepReply,
)
from octavo.server.body import read
from octavo.server.lifecycle import Lifecycle
from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply

MODE = {"mode": {"type": "string", "enum": list(MODES), "default": "wait"}}
LEVEL = {"level": {"type": "integer", "enum": list(LEVELS), "default": 1}}


def add_admin_routes(
    app: FastAPI,
    engine: AdminPort,
    admin: AdminConfig,
    lifecycle: Lifecycle,
    loop_lag: LoopLag,
    page: ApiPage,
) -> None:
    """All of them."""
    _add_rest_routes(app, engine, page)
    _add_request_routes(app, engine, page)
    _add_observe_routes(app, engine, admin, page)
    _add_inspection_routes(app, engine, lifecycle, loop_lag, page)


def _add_rest_routes(app: FastAPI, engine: AdminPort, page: ApiPage) -> None:
    rest = engine.rest
    tags: dict[str, Any] = {"tags": ["rest"]}

    @app.post(
        "/sleep", summary="Give memory back", **tags, **page.describe(SleepReply, query={**LEVEL, **MODE})
    )
    async def sleep(request: Request) -> Response:
        await rest.sleep(_level(request), request.query_params.get("mode", "wait"))
        return json_reply(SleepReply(rest.sleep_level > 0, rest.sleep_level))

    @app.post("/wake_up", summary="Take the memory again", **tags, **page.describe(SleepReply))
    async def wake_up(_: Request) -> Response:
        await rest.wake_up()
        return json_reply(SleepReply(rest.sleep_level > 0, rest.sleep_level))

    @app.get("/is_sleeping", summary="Whether the model sleeps", **tags, **page.describe(SleepReply))
    async def is_sleeping(_: Request) -> Response:
        return json_reply(SleepReply(rest.sleep_level > 0, rest.sleep_level))

    @app.post("/pause", summary="Take no more requests", **tags, **page.describe(PauseReply, query=MODE))
    async def pause(request: Request) -> Response:
        await rest.pause(request.query_params.get("mode", "wait"))
        return json_reply(PauseReply(rest.is_paused))

    @app.post("/resume", summary="Take requests again", **tags, **page.describe(PauseReply))
    async def resume(_: Request) -> Response:
        rest.resume()
        return json_reply(PauseReply(rest.is_paused))

    @app.get("/is_paused", summary="Whether requests are refused", **tags, **page.describe(PauseReply))
    async def is_paused(_: Request) -> Response:
        return json_reply(PauseReply(rest.is_paused))


def _add_request_routes(app: FastAPI, engine: AdminPort, page: ApiPage) -> None:
    tags: dict[str, Any] = {"tags": ["requests"]}

    @app.post("/abort_requests", summary="End requests", **tags, **page.describe(AbortReply, body=AbortBody))
    async def abort(request: Request) -> Response:
        body, _ = await read(request, AbortBody)
        return json_reply(await abort_requests(engine, body.request_ids))

    @app.post("/reset_prefix_cache", summary="Forget cached prefixes", **tags, **page.describe(Done))
    async def reset_prefix_cache(_: Request) -> Response:
        await engine.reset_prefix_cache()
        return json_reply(Done())


def _add_observe_routes(app: FastAPI, engine: AdminPort, admin: AdminConfig, page: ApiPage) -> None:
    profiles = Profiles(engine, admin.profile_dir)
    tags: dict[str, Any] = {"tags": ["observe"]}

    @app.post("/log_level", summary="How much is logged", **tags, **page.describe(Done, body=LogLevelBody))
    async def log_level(request: Request) -> Response:
        body, _ = await read(request, LogLevelBody)
        await engine.set_log_level(body.level)
        return json_reply(Done())

    @app.post("/start_profile", summary="Begin a torch profile", **tags, **page.describe(Done))
    async def start_profile(_: Request) -> Response:
        await profiles.start()
        return json_reply(Done())

    @app.post("/stop_profile", summary="Write the profile", **tags, **page.describe(ProfileReply))
    async def stop_profile(_: Request) -> Response:
        return json_reply(ProfileReply(await profiles.stop()))


def _add_inspection_routes(
    app: FastAPI, engine: AdminPort, lifecycle: Lifecycle, loop_lag: LoopLag, page: ApiPage
) -> None:
    tags: dict[str, Any] = {"tags": ["observe"]}

    @app.get("/server_info", summary="What runs here, and why so", **tags, **page.describe(ServerInfo))
    async def info(_: Request) -> Response:
        return json_reply(server_info(engine, lifecycle, octavo.__version__))

    @app.get("/accounting", summary="All that is held now", **tags, **page.describe(Accounting))
    async def account(_: Request) -> Response:
        return json_reply(accounting(engine, lifecycle, loop_lag))


def _level(request: Request) -> int:
    text = request.query_params.get("level", "1")
    if text not in {str(level) for level in LEVELS}:
        raise RequestError("level must be 1 or 2.", param="level")
    return int(text)
