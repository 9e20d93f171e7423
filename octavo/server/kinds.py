"""Which routes want a model that writes: on others they say so before they look at the body."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.config.pooling import PoolingFacts
from octavo.engine.pooling.refuse import cannot_write
from octavo.server.paths import route_path

WRITING = frozenset(
    {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/messages",
        "/api/chat",
        "/api/generate",
        "/generate",
        "/generate_stream",
        "/invocations",
    }
)


class OnlyNumbers:
    """Middleware of a server whose model answers with numbers."""

    def __init__(self, app: ASGIApp, facts: PoolingFacts) -> None:
        self.app = app
        self._facts = facts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST" and route_path(scope) in WRITING:
            raise cannot_write(self._facts)
        await self.app(scope, receive, send)
