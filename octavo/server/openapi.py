"""The OpenAPI page: bodies are pydantic models, replies msgspec structs; both become schemas here.

Routes parse bodies themselves (`body.py`), so FastAPI is told about them instead of finding out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from octavo.server.body import Body
from octavo.server.errors import ErrorReply

BODY = "x-octavo-body"
REPLIES = "x-octavo-replies"
"""Keys under which a route keeps its Python types until the page is made."""


def described(
    reply: type[msgspec.Struct],
    *,
    body: type[Body] | None = None,
    chunk: type[msgspec.Struct] | None = None,
    path_names: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Arguments for a route decorator. `chunk` is one event's data if the route can stream."""
    content: dict[str, Any] = {"application/json": {"schema": _ref(reply)}}
    if chunk is not None:
        content["text/event-stream"] = {"itemSchema": _ref(chunk)}
    extra: dict[str, Any] = {BODY: body, REPLIES: [reply, *([chunk] if chunk else []), ErrorReply]}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    if path_names:
        extra["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in path_names
        ]
    failure = {
        "description": "What went wrong",
        "content": {"application/json": {"schema": _ref(ErrorReply)}},
    }
    return {
        "openapi_extra": extra,
        "responses": {200: {"description": "Done", "content": content}, "4XX": failure, "5XX": failure},
    }


def install_openapi(app: FastAPI, *, has_keys: bool) -> None:
    """Make `app.openapi()` return the whole page; made once, when first asked for."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _page(app, has_keys)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _page(app: FastAPI, has_keys: bool) -> dict[str, Any]:
    page = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        servers=app.servers,
    )
    bodies: set[type[Body]] = set()
    replies: set[type[msgspec.Struct]] = {ErrorReply}
    for operation in (operation for path in page["paths"].values() for operation in path.values()):
        body = operation.pop(BODY, None)
        bodies.update([body] if body else [])
        replies.update(operation.pop(REPLIES, []))
    components = page.setdefault("components", {})
    components["schemas"] = {**_body_schemas(bodies), **_reply_schemas(replies)}
    if has_keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        page["security"] = [{"key": []}]
    return page


def _body_schemas(bodies: Iterable[type[Body]]) -> dict[str, Any]:
    ordered = sorted(bodies, key=lambda body: body.__name__)
    _, schema = models_json_schema(
        [(body, "validation") for body in ordered], ref_template="#/components/schemas/{model}"
    )
    found: dict[str, Any] = schema.get("$defs", {})
    return found


def _reply_schemas(replies: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
    ordered = sorted(replies, key=lambda reply: reply.__name__)
    _, found = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    return found


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
