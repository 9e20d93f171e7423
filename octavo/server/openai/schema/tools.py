"""Fields about tools, and calls in replies."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import WithJsonSchema

from octavo.server.body import Body

_NAMED = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    },
    "required": ["type", "function"],
}
_ALLOWED = {
    "type": "object",
    "properties": {
        "type": {"const": "allowed_tools"},
        "allowed_tools": {
            "type": "object",
            "properties": {
                "mode": {"enum": ["auto", "required"]},
                "tools": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["mode", "tools"],
        },
    },
    "required": ["type", "allowed_tools"],
}
CHOICE_SCHEMA = {"anyOf": [{"enum": ["none", "auto", "required"]}, _NAMED, _ALLOWED, {"type": "null"}]}
OLD_CHOICE_SCHEMA = {
    "anyOf": [
        {"enum": ["none", "auto"]},
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        {"type": "null"},
    ]
}


class ToolsBody(Body):
    """What may be called. Checked by `render/tools.py`."""

    tools: list[dict[str, Any]] | None = None
    tool_choice: Annotated[Any, WithJsonSchema(CHOICE_SCHEMA)] = None
    parallel_tool_calls: bool | None = None
    functions: list[dict[str, Any]] | None = None
    """The old name of tools."""
    function_call: Annotated[Any, WithJsonSchema(OLD_CHOICE_SCHEMA)] = None
    """The old name of tool_choice."""


class CalledFunction(msgspec.Struct):
    """What is called, with JSON text of its arguments."""

    name: str
    arguments: str


class AnswerToolCall(msgspec.Struct):
    """A call."""

    id: str
    function: CalledFunction
    type: str = "function"


class CalledFunctionDelta(msgspec.Struct):
    """The name comes first and whole, the arguments in pieces."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct):
    """What is new of a call."""

    index: int
    function: CalledFunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
