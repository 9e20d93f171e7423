"""Which path a request is for, as the router sees it, and which paths need no key."""

from __future__ import annotations

from starlette.types import Scope

OPEN_PATHS = frozenset({"/health", "/livez", "/readyz", "/ping"})
"""Answered without a key, and while the server starts or drains."""

DRAIN_PATHS = OPEN_PATHS | {"/metrics", "/version"}
"""Still answered while the server drains."""

QUEUED_PATHS = frozenset(
    {
        *("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/invocations"),
        *("/api/generate", "/api/chat", "/", "/generate", "/generate_stream"),
        *("/v1/embeddings", "/api/embed", "/api/embeddings", "/embed", "/pooling"),
        *("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank", "/classify", "/v1/classify"),
    }
)
"""A POST here waits for the engine."""


def route_path(scope: Scope) -> str:
    """The path without the proxy's prefix. Only the parsed path counts, never Host or the full URL."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root + "/"):
        return path[len(root) :]
    return path
