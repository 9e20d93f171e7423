"""Until when a request may run: what the caller says, and at most what the server allows."""

from __future__ import annotations

import dataclasses
import math

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.errors import ConfigError, RequestError
from octavo.config.server import ServerConfig
from octavo.server.auth import is_own_call
from octavo.server.tenants.caller import current_caller, set_caller

HEADER = "x-request-timeout"


def check_time_limit(server: ServerConfig) -> None:
    """Raises ConfigError for a limit that nobody could keep."""
    limit = server.request_timeout
    if limit is not None and not 0.0 < limit < math.inf:
        raise ConfigError(f"request_timeout is {limit}; over 0 seconds.", param="request_timeout")


class TimeLimit:
    """Middleware: notes the caller's time down. Lines of batches take as long as they take."""

    def __init__(self, app: ASGIApp, most_s: float | None) -> None:
        self.app = app
        self._most_s = most_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_own_call(scope):
            set_caller(dataclasses.replace(current_caller(), most_s=self._most_s))
            texts = [value for name, value in scope["headers"] if name == HEADER.encode()]
            if texts:
                set_caller(current_caller().within(_seconds(texts), "X-Request-Timeout"))
        await self.app(scope, receive, send)


def _seconds(texts: list[bytes]) -> float:
    try:
        [text] = texts
        return float(text)
    except ValueError:
        raise RequestError("X-Request-Timeout must be one number of seconds.", param=HEADER) from None
