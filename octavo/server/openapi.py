"""The OpenAPI page: bodies are pydantic models, replies msgspec structs; both become schemas here.

Routes parse bodies themselves (`body.py`), so FastAPI is told about them instead of finding out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, get_args

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from octavo.server.body import Body
from octavo.server.errors import ErrorReply

EVENT_STREAM = "text/event-stream"


class ApiPage:
    """Collects what routes take and give while they are added; makes the page when first asked for."""

    def __init__(self, *, has_keys: bool) -> None:
        self._has_keys = has_keys
        self._bodies: set[type[Body]] = set()
        self._replies: set[type[msgspec.Struct]] = {ErrorReply}

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

    def install(self, app: FastAPI) -> None:
        """Make `app.openapi()` return the page."""

        def openapi() -> dict[str, Any]:
            if app.openapi_schema is None:
                app.openapi_schema = self._make(app)
            return app.openapi_schema

        app.openapi = openapi  # type: ignore[method-assign]

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
