"""The key that guards every route but health, and whose request it is from then on."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.clock import monotonic
from octavo.base.errors import ErrorCode, RequestError
from octavo.server.paths import route_path
from octavo.server.tenants.access import Access, is_allowed
from octavo.server.tenants.caller import Caller, set_caller
from octavo.server.tenants.key_book import KeyBook
from octavo.server.tenants.tenant import Tenant

SCHEME = b"Bearer "

OWNER = "octavo.owner"
"""Where in the scope it says whose request this is. Calls that the server makes to itself on somebody's
behalf bring it along instead of a key; nothing that comes over HTTP can set it."""

_IS_OWN_CALL = "octavo.is_own_call"


def owner_of(request: Request) -> str:
    """Whose request this is: what one key made is shown to that key only."""
    owner: str = request.scope[OWNER]
    return owner


def is_own_call(scope: Scope) -> bool:
    """The server itself asks, for somebody whom it let in before: a line of a batch."""
    own: bool = scope.get(_IS_OWN_CALL, False)
    return own


class Auth:
    """Middleware: 401 unless the request brings one of the keys, in OpenAI's or Anthropic's header; 403 if
    the key does not open this path."""

    def __init__(
        self, app: ASGIApp, keys: KeyBook, access: Callable[[str], Access], *, has_walls: bool = False
    ) -> None:
        """has_walls: each tenant's prefix cache is its own."""
        self.app = app
        self._keys = keys
        self._access = access
        self._has_walls = has_walls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        access = self._access(route_path(scope))
        if access is not Access.OPEN:
            tenant = self._tenant(scope)
            if not is_allowed(tenant, access):
                raise RequestError(
                    f"This key is not for this: it lacks the scope {access}. Use another key.",
                    code=ErrorCode.FORBIDDEN,
                )
            scope[OWNER] = tenant.owner
            set_caller(Caller(tenant=tenant, is_walled=self._has_walls, arrived=monotonic()))
        await self.app(scope, receive, send)

    def _tenant(self, scope: Scope) -> Tenant:
        owner = scope.get(OWNER)
        scope[_IS_OWN_CALL] = owner is not None
        tenant = self._keys.find(_sent_keys(scope)) if owner is None else self._keys.by_owner(owner)
        if tenant is None:
            raise RequestError(
                "This server asks for a key: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
                code=ErrorCode.UNAUTHENTICATED,
            )
        return tenant


def _sent_keys(scope: Scope) -> list[bytes]:
    """Keys of both headers; none if one of them comes twice."""
    bearers = [value for name, value in scope["headers"] if name == b"authorization"]
    keys = [value for name, value in scope["headers"] if name == b"x-api-key"]
    if len(bearers) > 1 or len(keys) > 1:
        return []
    return [*(value[len(SCHEME) :] for value in bearers if value.startswith(SCHEME)), *keys]
