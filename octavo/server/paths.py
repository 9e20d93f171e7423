"""Which path a request is for, as the router sees it, and which paths need no key."""

from __future__ import annotations

from starlette.types import Scope

OPEN_PATHS = frozenset({"/health", "/livez", "/readyz", "/ping"})
"""Answered without a key, and while the server starts or drains."""

DRAIN_PATHS = OPEN_PATHS | {"/metrics", "/version"}
"""Still answered while the server drains."""


def route_path(scope: Scope) -> str:
    """The path without the proxy's prefix. Only the parsed path counts, never Host or the full URL."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root + "/"):
        return path[len(root) :]
    return path
