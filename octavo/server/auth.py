"""The key that guards every route but health. Keys are compared as digests, in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.env import api_key
from octavo.base.errors import ConfigError, ErrorCode, RequestError
from octavo.config.server import ServerConfig
from octavo.server.paths import OPEN_PATHS, route_path

SCHEME = b"Bearer "


def configured_keys(server: ServerConfig) -> list[str]:
    """Keys of the options, else the one of the environment. None means: no key is asked for."""
    from_environment = api_key()
    keys = server.api_key or ([from_environment] if from_environment else [])
    if any(not key.strip() for key in keys):
        raise ConfigError("api_key is empty; give a key or leave the option out.", param="api_key")
    return keys


class Auth:
    """Middleware: 401 unless the request brings one of the keys as `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._digests and route_path(scope) not in OPEN_PATHS and not self._is_allowed(scope):
            raise RequestError(
                "This server asks for a key: send it as 'Authorization: Bearer KEY'.",
                code=ErrorCode.UNAUTHENTICATED,
            )
        await self.app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(sent) != 1 or not sent[0].startswith(SCHEME):
            return False
        digest = _digest(sent[0][len(SCHEME) :])
        # Every key is compared, so that time does not tell which one matched.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
