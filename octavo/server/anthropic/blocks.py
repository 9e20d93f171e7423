"""Content blocks as callers send them: checked one by one, with the name of the one that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.anthropic.body import CacheControl
from octavo.server.errors import quoted

Block = dict[str, Any]
TTLS = ("5m", "1h")


def blocks(content: Any, where: str) -> Iterator[tuple[Block, str]]:
    """Blocks and their places. A string is a text block of its own."""
    if isinstance(content, str):
        yield {"type": "text", "text": content}, where
        return
    if not isinstance(content, list):
        raise RequestError(f"{where} must be a string or a list of blocks.", param=where)
    if not content:
        raise RequestError(f"{where} is empty; it needs at least one block.", param=where)
    for index, block in enumerate(content):
        place = f"{where}[{index}]"
        if not isinstance(block, dict):
            raise RequestError(f"{place} must be an object with a type.", param=place)
        yield block, place


def texts(content: Any, where: str) -> Iterator[tuple[str, Block, str]]:
    """Where nothing but text is possible: each text, its block and its place."""
    for block, place in blocks(content, where):
        if kind_of(block, place) != "text":
            raise unsupported(block, place, "text")
        yield string(block, "text", place), block, place


def kind_of(block: Block, where: str) -> str:
    kind = block.get("type")
    if not isinstance(kind, str):
        raise RequestError(f"{where}.type must be a string.", param=f"{where}.type")
    return kind


def string(block: Block, name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise RequestError(f"{where}.{name} must be a string.", param=f"{where}.{name}")
    return value


def unsupported(block: Block, where: str, allowed: str) -> RequestError:
    return RequestError(
        f"{where}: blocks of type {quoted(str(block['type']))} are not supported here; {allowed} are.",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param=f"{where}.type",
    )


def call_of(block: Block, where: str) -> dict[str, Any]:
    """A tool_use block as a chat's tool call."""
    arguments = block.get("input")
    if not isinstance(arguments, dict):
        raise RequestError(f"{where}.input must be an object.", param=f"{where}.input")
    return {
        "id": string(block, "id", where),
        "type": "function",
        "function": {
            "name": string(block, "name", where),
            "arguments": msgspec.json.encode(arguments).decode(),
        },
    }


def control_of(block: Block, where: str) -> tuple[CacheControl, str] | None:
    """The block's cache_control and its place, if it has one."""
    control = block.get("cache_control")
    if control is None:
        return None
    where = f"{where}.cache_control"
    if not isinstance(control, dict) or control.get("type") != "ephemeral":
        raise RequestError(f"{where} must be an object of type 'ephemeral'.", param=where)
    ttl = control.get("ttl")
    if ttl is not None and ttl not in TTLS:
        raise RequestError(f"{where}.ttl must be one of {', '.join(TTLS)}.", param=f"{where}.ttl")
    return CacheControl(type="ephemeral", ttl=ttl), where
