"""The OpenAPI page: bodies are pydantic models, replies msgspec structs; both become schemas here.

Routes parse bodies themselves (`body.py`), so FastAPI is told about them instead of finding out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, get_args

import msgspec
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from octavo.server.body import Body
from octavo.server.errors import ErrorReply

EVENT_STREAM = "text/event-stream"
PAGE_PATH, DOCS_PATH = "/openapi.json", "/docs"


class ApiPage:
    """Collects what routes take and give while they are added; makes the page, and gives it to who asks."""

    def __init__(self, *, has_keys: bool) -> None:
        self._has_keys = has_keys
        self._bodies: set[type[Body]] = set()
        self._replies: set[type[msgspec.Struct]] = {ErrorReply}
        self._written: bytes | None = None

    def describe(
        self,
        reply: type[msgspec.Struct],
        *,
        body: type[Body] | None = None,
        chunk: type[msgspec.Struct] | UnionType | None = None,
        path_name: str | None = None,
        query: Mapping[str, Any] | None = None,
        failure: type[msgspec.Struct] = ErrorReply,
        stream_type: str = EVENT_STREAM,
        is_list: bool = False,
    ) -> dict[str, Any]:
        """Arguments for a route decorator.

        `chunk` is one event's data if the route can stream, or a union of all kinds; `query` the schemas of
        optional parameters; `failure` the body of errors, for protocols with a shape of their own; is_list:
        the answer lists replies.
        """
        self._replies |= {reply, failure}
        schema: dict[str, Any] = {"type": "array", "items": _ref(reply)} if is_list else _ref(reply)
        content: dict[str, Any] = {"application/json": {"schema": schema}}
        if chunk is not None:
            kinds = get_args(chunk) or (chunk,)
            self._replies.update(kinds)
            schema = {"anyOf": [_ref(kind) for kind in (*kinds, failure)]}
            content[stream_type] = {"schema": _event(schema) if stream_type == EVENT_STREAM else schema}
        extra: dict[str, Any] = {}
        if body is not None:
            self._bodies.add(body)
            accepted = {"application/json": {"schema": _ref(body)}}
            extra["requestBody"] = {"required": True, "content": accepted}
        parameters = [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in (query or {}).items()
        ]
        if path_name is not None:
            parameters.append(
                {"name": path_name, "in": "path", "required": True, "schema": {"type": "string"}}
            )
        if parameters:
            extra["parameters"] = parameters
        refusal = {"application/json": {"schema": _ref(failure)}}
        wrong = {"description": "What went wrong", "content": refusal}
        return {
            "openapi_extra": extra,
            "responses": {200: {"description": "Done", "content": content}, "4XX": wrong, "5XX": wrong},
        }

    def install(self, app: FastAPI, *, is_served: bool) -> None:
        """Make `app.openapi()` return the page. is_served: at /openapi.json, and readable at /docs."""
        app.openapi = lambda: self._make(app)  # type: ignore[method-assign]
        if is_served:
            app.add_route(PAGE_PATH, self._give_page, include_in_schema=False)
            app.add_route(DOCS_PATH, _give_docs, include_in_schema=False)

    async def _give_page(self, request: Request) -> Response:
        """Made once, in a thread: it takes a tenth of a second, which nobody else shall wait for."""
        if self._written is None:
            self._written = await asyncio.to_thread(self._write, request.app, _root_path(request))
        return Response(self._written, media_type="application/json")

    def _write(self, app: FastAPI, root_path: str) -> bytes:
        servers = {"servers": [{"url": root_path}]} if root_path else {}
        return msgspec.json.encode({**self._make(app), **servers})

    def _make(self, app: FastAPI) -> dict[str, Any]:
        page = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        components = page.setdefault("components", {})
        components["schemas"] = {**_body_schemas(self._bodies), **_reply_schemas(self._replies)}
        if self._has_keys:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            page["security"] = [{"key": []}]
        return page


async def _give_docs(request: Request) -> Response:
    return get_swagger_ui_html(
        openapi_url=_root_path(request) + PAGE_PATH, title=f"{request.app.title} - Swagger UI"
    )


def _root_path(request: Request) -> str:
    """Where a proxy has put us; the same for all requests."""
    path: str = request.scope.get("root_path", "")
    return path.rstrip("/")


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


def _event(schema: dict[str, Any]) -> dict[str, Any]:
    """One server-sent event: JSON text in `data`, or the word that ends OpenAI's streams."""
    text = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    return {
        "type": "object",
        "properties": {"event": {"type": "string"}, "data": {"anyOf": [text, {"const": "[DONE]"}]}},
        "required": ["data"],
    }


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}
