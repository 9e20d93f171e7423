"""The key that guards every route but health. Keys are compared as digests, in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.env import api_key
from octavo.base.errors import ConfigError, ErrorCode, RequestError
from octavo.config.server import ServerConfig
from octavo.server.paths import OPEN_PATHS, route_path

SCHEME = b"Bearer "

OWNER = "octavo.owner"
"""Where in the scope it says whose request this is. Calls that the server makes to itself on somebody's
behalf bring it along instead of a key; nothing that comes over HTTP can set it."""

NOBODY = ""
"""Owner of every request to a server without keys."""


def configured_keys(server: ServerConfig) -> list[str]:
    """Keys of the options, else the one of the environment. None means: no key is asked for."""
    return usable_keys(server.api_key, api_key(), "api_key")


def usable_keys(given: list[str], from_environment: str | None, option: str) -> list[str]:
    """What was given, else what the environment says."""
    keys = given or ([from_environment] if from_environment else [])
    if any(not key.strip() for key in keys):
        raise ConfigError(f"{option} is empty; give a key or leave the option out.", param=option)
    return keys


def owner_of_key(key: str) -> str:
    """What is noted down in place of a key: the same for the same key, and no way back to it."""
    return _owner(_digest(key.encode()))


def owner_of(request: Request) -> str:
    """Whose request this is: what one key made is shown to that key only."""
    owner: str = request.scope[OWNER]
    return owner


class Auth:
    """Middleware: 401 unless the request brings one of the keys, in OpenAI's or Anthropic's header."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self._digests = [_digest(key.encode()) for key in keys]
        self._owners = {_owner(digest) for digest in self._digests} or {NOBODY}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if route_path(scope) not in OPEN_PATHS:
            owner = scope.get(OWNER) or self._owner_by_key(scope)
            if owner not in self._owners:
                raise RequestError(
                    "This server asks for a key: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
                    code=ErrorCode.UNAUTHENTICATED,
                )
            scope[OWNER] = owner
        await self.app(scope, receive, send)

    def _owner_by_key(self, scope: Scope) -> str | None:
        """None unless the request brings one of the keys."""
        if not self._digests:
            return NOBODY
        owners = []
        for key in _sent_keys(scope):
            digest = _digest(key)
            # Every key is compared, so that time does not tell which one matched.
            matches = [hmac.compare_digest(digest, known) for known in self._digests]
            owners += [_owner(digest)] if any(matches) else []
        return owners[0] if owners else None


def _sent_keys(scope: Scope) -> list[bytes]:
    """Keys of both headers; none if one of them comes twice."""
    bearers = [value for name, value in scope["headers"] if name == b"authorization"]
    keys = [value for name, value in scope["headers"] if name == b"x-api-key"]
    if len(bearers) > 1 or len(keys) > 1:
        return []
    return [*(value[len(SCHEME) :] for value in bearers if value.startswith(SCHEME)), *keys]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _owner(digest: bytes) -> str:
    return hashlib.sha256(b"octavo owner" + digest).hexdigest()[:32]
