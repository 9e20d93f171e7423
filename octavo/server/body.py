"""Bytes of a body -> a checked pydantic model. Everything malformed ends here, with the parameter's name.

One policy for all routes: `application/json` in UTF-8, one object, at most MAX_DEPTH deep. Fields we do
not know are ignored, with one warning per name (clients of other servers send many).
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema
from starlette.requests import Request

from octavo.base.errors import ErrorCode, RequestError
from octavo.observe.log_filters import warn_once
from octavo.server.body_shape import check_shape
from octavo.server.errors import quoted
from octavo.server.limits import read_body

logger = logging.getLogger(__name__)

MAX_DEPTH = 64
MAX_FIELDS = 256
MAX_EXPLAINED_BYTES = 2**16
"""Malformed bodies up to this size are read a second time to name the number that is wrong."""

JSON_TYPES = {"application/json"}
UNION_TAGS = {"str", "int", "float", "bool", "none"}
"""What pydantic adds to a location for a branch of a union; a caller knows no such parameter."""


def _end_lists_early(schema: Any) -> None:
    """Have lists end at their first wrong entry. Only the first is told, and pydantic takes 2 us for each."""
    if isinstance(schema, dict):
        if schema.get("type") == "list":
            schema["fail_fast"] = True
        for key, inner in schema.items():
            if key != "metadata":
                _end_lists_early(inner)
    elif isinstance(schema, list | tuple):
        for inner in schema:
            _end_lists_early(inner)


class Body(BaseModel):
    """Base of all request bodies: numbers are what they say they are, and finite."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Known fields we cannot honour, and the values that ask for nothing (null always does)."""
    ignored: ClassVar[frozenset[str]] = frozenset()
    """Known fields that change nothing about an answer."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _end_lists_early(schema)
        return schema


class Part(Body):
    """An object inside a body that has a policy for fields of its own."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, value: Any) -> Any:
        if isinstance(value, dict):
            _check_fields(value, cls)
        return value


B = TypeVar("B", bound=Body)


async def read(request: Request, model: type[B]) -> tuple[B, int]:
    """Read, parse and check a body. Returns it and its size in bytes."""
    body = await read_json(request)
    return validate(parse(body), model), len(body)


async def read_json(request: Request) -> bytes:
    """The body as it came, if it says that it is JSON and is not too much to parse."""
    _check_media_type(request.headers.get("content-type"))
    body = await read_body(request.receive)
    for _ in check_shape(body):
        await asyncio.sleep(0)
    return body


def parse(body: bytes) -> dict[str, Any]:
    """JSON object in `body`. Raises RequestError for anything else."""
    if not body.strip():
        raise RequestError("The body is empty; send a JSON object.", code=ErrorCode.BODY_REQUIRED)
    try:
        document = msgspec.json.decode(body)
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _not_json(body, error) from None
    if not isinstance(document, dict):
        raise RequestError("The body must be a JSON object, like {...}.", code=ErrorCode.JSON_INVALID)
    # Brackets bound the depth; only bodies with many of them are walked.
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deeper_than(document, MAX_DEPTH):
        raise _too_deep()
    return document


def validate(document: dict[str, Any], model: type[B]) -> B:
    """Check a document against its model."""
    _check_fields(document, model)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = parameter_name(first["loc"])
        raise RequestError(f"{param}: {_plain(first['msg'])}.", param=param) from None


def _check_fields(document: dict[str, Any], model: type[Body]) -> None:
    if len(document) > MAX_FIELDS:
        raise RequestError(f"The body has {len(document)} fields; at most {MAX_FIELDS}.")
    for name in document.keys() - model.model_fields.keys():
        _check_unmodelled(name, document[name], model)


def _check_unmodelled(name: str, value: Any, model: type[Body]) -> None:
    if name in model.unsupported:
        if value is not None and value not in model.unsupported[name]:
            raise RequestError(
                f"{name} is not supported yet; leave it out.", code=ErrorCode.UNSUPPORTED_VALUE, param=name
            )
    elif name not in model.ignored:
        shown = quoted(name)
        warn_once(logger, shown, f"Ignoring unknown field {shown} in request bodies")


def parameter_name(location: tuple[int | str, ...]) -> str:
    """('messages', 0, 'content', 'str') -> 'messages[0].content'."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part in UNION_TAGS or "[" in part:
            break
        else:
            name += f".{part}" if name else part
    return quoted(name).strip("'")


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")


def _check_media_type(content_type: str | None) -> None:
    kind, _, rest = (content_type or "").partition(";")
    settings = dict(part.strip().lower().partition("=")[::2] for part in rest.split(";") if part.strip())
    charset = settings.get("charset", "utf-8").strip("\"'")
    if kind.strip().lower() not in JSON_TYPES or charset not in {"utf-8", "utf8"}:
        raise RequestError(
            "Send the body as 'Content-Type: application/json', in UTF-8.", code=ErrorCode.MEDIA_TYPE
        )


def _too_deep() -> RequestError:
    return RequestError(f"The body is nested more than {MAX_DEPTH} deep.", code=ErrorCode.TOO_DEEP)


def _not_json(body: bytes, error: Exception) -> RequestError:
    # msgspec tells wrong UTF-8 in one way until 0.22 and in another since: looking ourselves holds for both.
    if not _is_utf8(body):
        return RequestError("The body is not valid UTF-8.", code=ErrorCode.INVALID_UTF8)
    param = _wrong_number(body)
    if param is not None:
        return RequestError(f"{param} is not a usable number; numbers must be finite.", param=param)
    detail = str(error).removeprefix("JSON is malformed: ").split(" - at ")[0]
    return RequestError(f"The body is not valid JSON: {detail}.", code=ErrorCode.JSON_INVALID)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _wrong_number(body: bytes) -> str | None:
    """Name of the parameter whose number is NaN, infinite or too large, if that is all that is wrong."""
    if len(body) > MAX_EXPLAINED_BYTES:
        return None
    try:
        document = json.loads(body, parse_int=lambda digits: int(digits) if len(digits) < 400 else math.inf)
    except (ValueError, RecursionError):
        return None
    places: list[tuple[tuple[int | str, ...], Any]] = [((), document)]
    while places:
        location, value = places.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return parameter_name(location) or "body"
        if len(location) <= MAX_DEPTH and isinstance(value, dict | list):
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            places.extend(((*location, key), item) for key, item in inner)
    return None


def _is_deeper_than(document: Any, limit: int) -> bool:
    level = [document]
    for _ in range(limit):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True
