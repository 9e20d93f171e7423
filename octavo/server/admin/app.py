"""The administrative application: a few routes, their own key, their own listener."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

import octavo
from octavo.base.env import admin_api_key
from octavo.config.admin import AdminConfig
from octavo.config.root import EngineConfig
from octavo.observe.loop_lag import LoopLag
from octavo.server.admin.guard import Guard, check_reach
from octavo.server.admin.port import AdminPort
from octavo.server.admin.routes import add_admin_routes
from octavo.server.auth import Auth
from octavo.server.errors import Errors, on_http_exception
from octavo.server.heads import answer_heads
from octavo.server.http_form import HttpForm
from octavo.server.lifecycle import Lifecycle
from octavo.server.limits import BodyLimit
from octavo.server.openapi import ApiPage
from octavo.server.request_id import RequestContext
from octavo.server.tenants.access import admin_access
from octavo.server.tenants.key_book import administrators, usable_keys

DESCRIPTION = "What operators do to a running server. None of these routes exist on the clients' listener."
MAX_BODY_BYTES = 2**20


def admin_keys(admin: AdminConfig) -> list[str]:
    """Keys that open the listener. Raises ConfigError where it needs one and has none."""
    keys = usable_keys(admin.admin_api_key, admin_api_key(), "admin_api_key")
    check_reach(admin, keys)
    return keys


def create_admin_app(
    engine: AdminPort, config: EngineConfig, lifecycle: Lifecycle, loop_lag: LoopLag | None = None
) -> FastAPI:
    """Build the application around a started engine. `loop_lag` is given by who has it measure."""
    keys, has_docs = administrators(admin_keys(config.admin), config.server), config.server.enable_docs
    app = FastAPI(
        title="Octavo administration",
        description=DESCRIPTION,
        version=octavo.__version__,
        openapi_url=None,  # the page has its own route
        redirect_slashes=False,
        middleware=[
            Middleware(RequestContext, None, config.observe.log_requests),
            Middleware(Errors),
            Middleware(HttpForm),
            *([Middleware(Guard)] if keys.is_open else []),
            Middleware(Auth, keys, admin_access),
            Middleware(BodyLimit, MAX_BODY_BYTES),
        ],
        exception_handlers={HTTPException: on_http_exception},
    )
    page = ApiPage(has_keys=not keys.is_open)
    add_admin_routes(app, engine, config.admin, lifecycle, loop_lag or LoopLag(), page)
    page.install(app, is_served=has_docs)
    answer_heads(app)
    return app
