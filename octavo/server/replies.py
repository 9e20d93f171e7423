"""Small things every route does: a JSON reply, work that may be slow on long text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

P = ParamSpec("P")
T = TypeVar("T")

LONG_BODY_BYTES = 16 * 1024
"""Bodies from this size on are rendered in a thread: tokenizing them would hold up every stream."""


def json_reply(reply: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(reply), media_type="application/json")


def request_id_of(request: Request) -> str:
    """The id that the outermost middleware gave this request."""
    request_id: str = request.scope["octavo.request_id"]
    return request_id


def weighed(num_bytes: int, template: str | None) -> int:
    """What a body counts as: one that brings a template may take long however short it is."""
    return num_bytes if template is None else max(num_bytes, LONG_BODY_BYTES)


async def off_loop_if_long(num_bytes: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function`, in a thread if the body was long."""
    if num_bytes < LONG_BODY_BYTES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)
