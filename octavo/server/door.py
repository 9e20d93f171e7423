"""Door: refuses under overload what the engine would refuse in any case, before anything of it is read."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.errors import OctavoError
from octavo.observe.metrics import Metrics
from octavo.server.auth import is_own_call
from octavo.server.engine_port import EnginePort
from octavo.server.paths import QUEUED_PATHS, route_path
from octavo.server.tenants.caller import current_caller


class Door:
    """Middleware. To read, parse and tokenize a body only to refuse it takes time from those that run."""

    def __init__(self, app: ASGIApp, engine: EnginePort, metrics: Metrics | None) -> None:
        self.app = app
        self._engine = engine
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST" and route_path(scope) in QUEUED_PATHS and not is_own_call(scope):
            try:
                self._engine.check_room(current_caller().terms)
            except OctavoError as error:
                if self._metrics is not None:
                    self._metrics.rejected(error.code.value.code)
                raise
        await self.app(scope, receive, send)
