"""Guard: no web page may talk to a listener that asks for no key.

A browser lets any page send simple POST requests to loopback addresses, and a host name of the page's
owner can be made to point there. Such requests show it: browsers add an Origin header, and Host names
the page's own host. Where keys are set they do the work, as no page knows them.
"""

from __future__ import annotations

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.base.errors import ConfigError, ErrorCode, RequestError
from octavo.config.admin import AdminConfig

LOOPBACK_NAME = "localhost"


def check_reach(admin: AdminConfig, keys: list[str]) -> None:
    """A listener that other machines reach needs a key."""
    if not keys and not is_loopback(admin.admin_host):
        raise ConfigError(
            f"admin_host {admin.admin_host!r} can be reached from other machines: set --admin-api-key or "
            "OCTAVO_ADMIN_API_KEY, or listen on 127.0.0.1.",
            param="admin_host",
        )


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, stays on this machine."""
    if host == LOOPBACK_NAME:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Middleware: 403 for what may come from a browser. Only around listeners without a key."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        has_origin = any(name == b"origin" for name, _ in scope["headers"])
        if has_origin or len(hosts) != 1 or not is_loopback(_host_name(hosts[0])):
            raise RequestError(
                "Without a key this listener answers only programs on this machine, by its loopback address. "
                "Set --admin-api-key to reach it otherwise.",
                code=ErrorCode.FORBIDDEN,
            )
        await self.app(scope, receive, send)


def _host_name(header: bytes) -> str:
    """b'[::1]:9000' -> '::1'."""
    text = header.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]
