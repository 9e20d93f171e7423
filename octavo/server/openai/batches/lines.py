"""Lines of a batch's input: bytes -> a checked request. One line that is wrong never hides the next."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import Field

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.body import Body, parse, validate
from octavo.server.body_shape import check_shape

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")
"""Where lines may go, if the application has the route."""

MAX_CUSTOM_ID = 512
LINE_BYTES = 4096
"""Room in a line for all that is not its body."""


class LineBody(Body):
    """What a line must look like."""

    custom_id: Annotated[str, Field(min_length=1, max_length=MAX_CUSTOM_ID)]
    method: Literal["POST"]
    url: str
    body: dict[str, Any]


class _Raw(msgspec.Struct):
    """The body's own bytes: its route shall read just what the caller wrote."""

    body: msgspec.Raw


@dataclass(frozen=True, kw_only=True)
class Line:
    """One request."""

    number: int
    """In the file, from 1."""
    custom_id: str
    url: str
    body: bytes


@dataclass(frozen=True, kw_only=True)
class RawLine:
    """One line as it stands in the file; None where it was longer than allowed."""

    number: int
    data: bytes | None


def read_lines(path: Path, max_bytes: int) -> Iterator[RawLine]:
    """All lines that are not blank, one at a time. No more than `max_bytes` of a line are ever held."""
    with path.open("rb") as file:
        number = 0
        while data := file.readline(max_bytes + 1):
            number += 1
            if number == 1:
                data = data.removeprefix(codecs.BOM_UTF8)
            if len(data) > max_bytes:
                while data and not data.endswith(b"\n"):
                    data = file.readline(max_bytes + 1)
                yield RawLine(number=number, data=None)
            elif data.strip():
                yield RawLine(number=number, data=data)


def parse_line(raw: RawLine, endpoints: tuple[str, ...]) -> Line:
    """Check everything but what the route itself checks. Raises RequestError naming the field."""
    if raw.data is None:
        raise RequestError("The line is too long.", code=ErrorCode.BODY_TOO_LARGE)
    try:
        document = _parse(raw.data)
    except RequestError as error:
        message = error.message.replace("The body", "The line", 1)
        raise RequestError(message, code=error.code, param=error.param) from None
    line = validate(document, LineBody)
    if line.url not in endpoints:
        raise RequestError(f"url must be {' or '.join(endpoints)}.", param="url")
    for name in ("stream", "background"):
        if line.body.get(name):
            raise RequestError(
                f"A line of a batch is answered as a whole; leave {name} out.",
                code=ErrorCode.UNSUPPORTED_VALUE,
                param=f"body.{name}",
            )
    body = bytes(msgspec.json.decode(raw.data, type=_Raw).body)
    return Line(number=raw.number, custom_id=line.custom_id, url=line.url, body=body)


def custom_id_of(raw: RawLine) -> str | None:
    """The id of a line that may be wrong otherwise."""
    try:
        found = _parse(raw.data or b"").get("custom_id")
    except RequestError:
        return None
    return found if isinstance(found, str) and 0 < len(found) <= MAX_CUSTOM_ID else None


def _parse(data: bytes) -> dict[str, Any]:
    for _ in check_shape(data):
        pass
    return parse(data)
