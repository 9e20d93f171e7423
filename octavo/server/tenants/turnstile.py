"""Turnstile: lets a tenant's requests in one by one, before anything of their bodies is read."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.server.auth import is_own_call
from octavo.server.paths import route_path
from octavo.server.tenants.access import Access, client_access
from octavo.server.tenants.accounts import Accounts
from octavo.server.tenants.caller import current_caller

CANCEL = "/cancel"
"""What paths end in that end a response or a batch."""


class Turnstile:
    """Middleware: 429 with Retry-After for who has used what it may use. Counts what asks for work: POST."""

    def __init__(self, app: ASGIApp, accounts: Accounts) -> None:
        self.app = app
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_work(scope):
            await self.app(scope, receive, send)
            return
        tenant = current_caller().tenant
        if is_own_call(scope):
            self._accounts.enter_own_call(tenant)
            await self.app(scope, receive, send)
            return
        self._accounts.enter(tenant)
        try:
            await self.app(scope, receive, send)
        finally:
            self._accounts.leave(tenant)


def _is_work(scope: Scope) -> bool:
    """Who may have no more running, or no more requests in this minute, may still end what runs."""
    path = route_path(scope)
    is_asked = scope["method"] == "POST" and client_access(path) is Access.INFERENCE
    return is_asked and not path.endswith(CANCEL)
