"""HttpForm: what the parser lets through though nobody should act on it.

Nothing here decides by Host but the administrative guard. Caches and proxies before us do, and disagree
about 'evil/?' or 'a@b'; what can be read in two ways is not answered at all.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.errors import ErrorCode, RequestError

VERSIONS = ("1.0", "1.1")

_HOST = re.compile(rb"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._~-]{0,255})(:[0-9]{0,5})?")
"""An address or a name, and a port. Empty is allowed by HTTP, and sent on Unix sockets."""


class HttpForm:
    """Middleware: 400 unless it is HTTP/1 and Host is host[:port]."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["http_version"] not in VERSIONS:
            raise RequestError("This server speaks HTTP/1.1.", code=ErrorCode.HTTP_INVALID)
        for name, value in scope["headers"]:
            if name == b"host" and not _HOST.fullmatch(value):
                raise RequestError("The Host header is not the name of a host.", code=ErrorCode.HTTP_INVALID)
        await self.app(scope, receive, send)
