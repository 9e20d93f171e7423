"""GET /v1/usage: what a key has used; with the scope admin, what every key has."""

from __future__ import annotations

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.openapi import ApiPage
from octavo.server.replies import json_reply
from octavo.server.serving import Serving
from octavo.server.tenants.accounts import TenantUsage
from octavo.server.tenants.caller import current_caller
from octavo.server.tenants.tenant import Scope


class KeyUsage(msgspec.Struct):
    """Since the server started."""

    name: str
    usage: TenantUsage


class UsageReply(msgspec.Struct):
    """One entry for each name."""

    object: str
    since: int
    """When the counts began, Unix seconds."""
    data: list[KeyUsage]


def add_usage_routes(app: FastAPI, serving: Serving, page: ApiPage) -> None:
    @app.get("/v1/usage", tags=["info"], summary="What keys have used", **page.describe(UsageReply))
    async def usage(_: Request) -> Response:
        tenant = current_caller().tenant
        names = serving.keys.names() if Scope.ADMIN in tenant.scopes else [tenant.name]
        entries = [KeyUsage(name, used) for name, used in serving.accounts.of(names).items()]
        return json_reply(UsageReply("list", serving.accounts.since, entries))
