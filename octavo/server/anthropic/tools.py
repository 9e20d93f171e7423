"""Tools and the choice among them, from Anthropic's shape to the one of a chat body."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted

NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def read_tools(tools: Any) -> list[dict[str, Any]]:
    """Functions. Tools that Anthropic runs or defines are refused by their type."""
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise RequestError("tools must be a list.", param="tools")
    found = [_function(tool, f"tools[{index}]") for index, tool in enumerate(tools)]
    (name, count), *_ = Counter(tool["function"]["name"] for tool in found).most_common(1) or [("", 0)]
    if count > 1:
        raise RequestError(f"tools has {quoted(name)} {count} times; names must differ.", param="tools")
    return found


def read_choice(choice: Any, names: Sequence[str]) -> dict[str, Any]:
    """tool_choice and parallel_tool_calls of a chat body; empty where nothing is said."""
    if choice is None:
        return {}
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        raise RequestError(
            "tool_choice must be an object of type 'auto', 'any', 'tool' or 'none'.", param="tool_choice"
        )
    if not names:
        if kind in ("any", "tool"):
            raise RequestError("tool_choice asks for a tool, but there are no tools.", param="tool_choice")
        return {}
    found: dict[str, Any] = {"tool_choice": _wish(choice, kind, names)}
    if _flag(choice, "disable_parallel_tool_use", "tool_choice"):
        found["parallel_tool_calls"] = False
    return found


def _wish(choice: dict[str, Any], kind: str, names: Sequence[str]) -> Any:
    if kind == "tool":
        if choice.get("name") not in names:
            raise RequestError("tool_choice.name must be the name of a tool.", param="tool_choice.name")
        return {"type": "function", "function": {"name": choice["name"]}}
    return "required" if kind == "any" else kind


def _function(tool: Any, where: str) -> dict[str, Any]:
    if not isinstance(tool, dict):
        raise RequestError(f"{where} must be an object.", param=where)
    _check_kind(tool, where)
    name, schema, description = tool.get("name"), tool.get("input_schema"), tool.get("description")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise RequestError(
            f"{where}.name must be 1 to 128 letters, digits, '_' or '-'.", param=f"{where}.name"
        )
    if not isinstance(schema, dict):
        raise RequestError(f"{where}.input_schema must be a JSON schema.", param=f"{where}.input_schema")
    if description is not None and not isinstance(description, str):
        raise RequestError(f"{where}.description must be a string.", param=f"{where}.description")
    function: dict[str, Any] = {"name": name, "parameters": schema}
    described = "\n".join(filter(None, [description, _examples(tool, where)]))
    if described:
        function["description"] = described
    if _flag(tool, "strict", where):
        function["strict"] = True
    return {"type": "function", "function": function}


def _check_kind(tool: dict[str, Any], where: str) -> None:
    if tool.get("type") not in (None, "custom"):
        raise RequestError(
            f"{where}: tools of type {quoted(str(tool['type']))} are Anthropic's own; only custom tools with "
            "an input_schema are supported.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=f"{where}.type",
        )
    if tool.get("allowed_callers") not in (None, ["direct"]) or _flag(tool, "defer_loading", where):
        name = "defer_loading" if tool.get("defer_loading") else "allowed_callers"
        raise RequestError(
            f"{where}.{name} is not supported; leave it out.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=f"{where}.{name}",
        )


def _examples(tool: dict[str, Any], where: str) -> str:
    """Templates have no place for examples: the model reads them in the description."""
    examples = tool.get("input_examples") or []
    if not isinstance(examples, list) or not all(isinstance(example, dict) for example in examples):
        raise RequestError(
            f"{where}.input_examples must be a list of objects.", param=f"{where}.input_examples"
        )
    return "\n".join(f"Example input: {msgspec.json.encode(example).decode()}" for example in examples)


def _flag(holder: dict[str, Any], name: str, where: str) -> bool:
    value = holder.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(f"{where}.{name} must be true or false.", param=f"{where}.{name}")
    return bool(value)
