"""The tools of a body and the choice among them, checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted
from octavo.server.openai.schema.tools import ToolsBody

MAX_TOOLS = 1024
NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
MODES = "'none', 'auto', 'required' or an object that names a function"

Mode = Literal["none", "auto", "required"]


@dataclass(frozen=True, kw_only=True)
class Tool:
    """One function."""

    name: str
    parameters: Mapping[str, Any]
    is_strict: bool
    document: dict[str, Any]
    """As templates show it."""
    origin: str
    """Where its parameters stand in the body."""


@dataclass(frozen=True, kw_only=True)
class ToolWish:
    """What a body says about tools."""

    tools: Sequence[Tool] = ()
    """Those that may be called: what the model is shown."""
    mode: Mode = "none"
    is_single: bool = False
    """At most one call in an answer."""

    @property
    def is_active(self) -> bool:
        return bool(self.tools) and self.mode != "none"

    @property
    def documents(self) -> list[dict[str, Any]] | None:
        return [tool.document for tool in self.tools] if self.is_active else None

    @property
    def num_chars(self) -> int:
        """Text that is in the prompt for sure."""
        return sum(
            len(tool.name) + len(tool.document["function"].get("description") or "") for tool in self.tools
        )


def tool_wish(body: ToolsBody) -> ToolWish:
    """Check tools, tool_choice and their older names. Raises RequestError naming the parameter."""
    if body.functions is not None and body.tools is not None:
        raise RequestError("functions is the old name of tools; give one of them.", param="functions")
    if body.functions is not None:
        tools = [
            _function(function, f"functions[{index}]", {}) for index, function in enumerate(body.functions)
        ]
        name, choice = "function_call", _newer_choice(body.function_call)
    else:
        tools = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or ())]
        name, choice = "tool_choice", body.tool_choice
    _check_list(tools, "functions" if body.functions is not None else "tools")
    return _chosen(tools, choice, name, is_single=body.parallel_tool_calls is False)


def _check_list(tools: Sequence[Tool], param: str) -> None:
    if len(tools) > MAX_TOOLS:
        raise RequestError(f"{param} has {len(tools)} entries; at most {MAX_TOOLS}.", param=param)
    for name, count in Counter(tool.name for tool in tools).items():
        if count > 1:
            raise RequestError(f"{param} has {quoted(name)} {count} times; names must differ.", param=param)


def _tool(tool: Any, where: str) -> Tool:
    kind = tool.get("type", "function")
    if kind != "function":
        raise RequestError(
            f"{where}.type must be 'function'; other kinds of tools are not supported.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=f"{where}.type",
        )
    extra = {key: value for key, value in tool.items() if key not in ("type", "function")}
    return _function(tool.get("function"), f"{where}.function", extra)


def _function(function: Any, where: str, extra: dict[str, Any]) -> Tool:
    if not isinstance(function, dict):
        raise RequestError(f"{where} must be an object with a name.", param=where)
    name = function.get("name")
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise RequestError(
            f"{where}.name must be 1 to 128 letters, digits, '_', '-' or '.'.", param=f"{where}.name"
        )
    description = function.get("description")
    if description is not None and not isinstance(description, str):
        raise RequestError(f"{where}.description must be a string.", param=f"{where}.description")
    strict = function.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise RequestError(f"{where}.strict must be true or false.", param=f"{where}.strict")
    parameters = function.get("parameters")
    _check_parameters(parameters, f"{where}.parameters")
    shown = {key: value for key, value in function.items() if key != "strict" and value is not None}
    # Many templates take these for granted.
    shown.setdefault("description", "")
    shown.setdefault("parameters", {"type": "object", "properties": {}})
    return Tool(
        name=name,
        parameters=parameters or {"type": "object", "properties": {}, "additionalProperties": False},
        is_strict=bool(strict),
        document={**extra, "type": "function", "function": shown},
        origin=f"{where}.parameters",
    )


def _check_parameters(parameters: Any, where: str) -> None:
    if parameters is None:
        return
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise RequestError(f"{where} must be a JSON schema of type 'object'.", param=where)
    properties = parameters.get("properties")
    if properties is not None and not (
        isinstance(properties, dict) and all(isinstance(value, dict | bool) for value in properties.values())
    ):
        raise RequestError(f"{where}.properties must be an object of schemas.", param=f"{where}.properties")
    required = parameters.get("required")
    if required is not None and not (
        isinstance(required, list) and all(isinstance(name, str) for name in required)
    ):
        raise RequestError(f"{where}.required must be a list of names.", param=f"{where}.required")


def _newer_choice(choice: Any) -> Any:
    """function_call in the words of tool_choice."""
    if isinstance(choice, dict):
        return {"type": "function", "function": choice}
    if choice not in (None, "none", "auto"):
        raise RequestError(
            "function_call must be 'none', 'auto' or an object with a name.", param="function_call"
        )
    return choice


def _chosen(tools: Sequence[Tool], choice: Any, param: str, *, is_single: bool) -> ToolWish:
    if choice in (None, "auto"):
        return ToolWish(tools=tools, mode="auto" if tools else "none", is_single=is_single)
    if choice == "none":
        return ToolWish(tools=tools)
    if not tools:
        raise RequestError(f"{param} asks for a tool, but the body has no tools.", param=param)
    if choice == "required":
        return ToolWish(tools=tools, mode="required", is_single=is_single)
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function":
        named = _named(choice.get("function", choice), tools, f"{param}.function")
        return ToolWish(tools=[named], mode="required", is_single=True)
    if kind == "allowed_tools":
        return _allowed(choice.get("allowed_tools", choice), tools, f"{param}.allowed_tools", is_single)
    raise RequestError(f"{param} must be {MODES}.", param=param)


def _named(function: Any, tools: Sequence[Tool], where: str) -> Tool:
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise RequestError(f"{where}.name is missing; it must be the name of a tool.", param=f"{where}.name")
    found = next((tool for tool in tools if tool.name == name), None)
    if found is None:
        raise RequestError(f"There is no tool {quoted(name)} in this body.", param=f"{where}.name")
    return found


def _allowed(allowed: Any, tools: Sequence[Tool], where: str, is_single: bool) -> ToolWish:
    listed = allowed.get("tools") if isinstance(allowed, dict) else None
    if not isinstance(listed, list) or not listed:
        raise RequestError(f"{where}.tools must be a list of tools, at least one.", param=f"{where}.tools")
    mode = allowed.get("mode", "auto")
    if mode not in ("auto", "required"):
        raise RequestError(f"{where}.mode must be 'auto' or 'required'.", param=f"{where}.mode")
    names = set()
    for index, entry in enumerate(listed):
        function = entry.get("function", entry) if isinstance(entry, dict) else None
        names.add(_named(function, tools, f"{where}.tools[{index}].function").name)
    chosen = [tool for tool in tools if tool.name in names]
    return ToolWish(tools=chosen, mode=mode, is_single=is_single)
