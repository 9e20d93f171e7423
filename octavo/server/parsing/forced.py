"""Calls that a model has to make, or has to make well: a structural tag from a format and the tools."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from octavo.server.parsing.arguments import property_schema, types_of
from octavo.server.parsing.formats.contract import Shape, ToolFormat

Form = dict[str, Any]

ANY_ARGUMENTS: Form = {"type": "object"}
NOTHING: Form = {"type": "const_string", "value": ""}


@dataclass(frozen=True, kw_only=True)
class ForcedTool:
    """A tool that may be called."""

    name: str
    parameters: Mapping[str, Any]
    origin: str
    """Where its parameters stand in the body."""
    is_checked: bool = True
    """Its arguments keep to their schema. Else any will do."""


@dataclass
class CallForms:
    """Forms of calls in one shape, and where the schemas in them come from."""

    format: ToolFormat
    origins: dict[str, str] = field(default_factory=dict)
    """Place in the form -> place in the body."""

    @property
    def shape(self) -> Shape:
        return self.format.shape

    def required(self, tools: Sequence[ForcedTool], *, is_single: bool, place: str) -> Form:
        """Nothing but calls, at least one."""
        shape = self.shape
        is_alone = not shape.begin and not shape.end
        inner = place if is_alone else f"{place}.elements[{1 if shape.begin else 0}]"
        calls: Form = {
            "type": "tags_with_separator",
            "tags": self._tags(tools, inner),
            "separator": shape.between or "",
            "at_least_one": True,
            "stop_after_first": is_single or shape.between is None,
        }
        return sequence([*const(shape.begin), calls, *const(shape.end)])

    def checked(self, tools: Sequence[ForcedTool], *, is_single: bool, place: str) -> Form:
        """Any text, in which every call keeps to its tool's schema."""
        shape = self.shape
        if self.format.starts and not self.format.opens:
            # Only the beginning tells a call, so text must begin otherwise.
            calls = self.required(tools, is_single=is_single, place=f"{place}.elements[0]")
            starts = re.escape("".join(self.format.starts))
            return either([calls, {"type": "regex", "pattern": f"([^\\s{starts}](.|\\n)*)?"}])
        if not shape.begin:
            return {
                "type": "triggered_tags",
                "triggers": [self._trigger(shape.call[0])],
                "tags": self._tags(tools, place),
                "stop_after_first": is_single,
            }
        calls = {
            "type": "tags_with_separator",
            "tags": self._tags(tools, f"{place}.tags[0].content"),
            "separator": shape.between or "",
            "at_least_one": True,
            "stop_after_first": is_single or shape.between is None,
        }
        whole: Form = {"type": "tag", "begin": shape.begin, "content": calls, "end": shape.end}
        return {"type": "triggered_tags", "triggers": [self._trigger(shape.begin)], "tags": [whole]}

    def _trigger(self, begin: str) -> str:
        """The marker that a call begins with."""
        fitting = [mark for mark in self.format.opens if begin.startswith(mark)]
        return max(fitting, key=len) if fitting else begin.partition("NAME")[0]

    def _tags(self, tools: Sequence[ForcedTool], place: str) -> list[Form]:
        before, after = self.shape.call
        return [
            {
                "type": "tag",
                "begin": before.replace("NAME", tool.name),
                "content": self._arguments(tool, f"{place}.tags[{index}].content"),
                "end": after,
            }
            for index, tool in enumerate(tools)
        ]

    def _arguments(self, tool: ForcedTool, place: str) -> Form:
        if self.shape.arguments == "json":
            schema = (tool.is_checked and tool.parameters) or ANY_ARGUMENTS
            return self._schema(schema, tool, f"{place}.json_schema")
        properties = tool.parameters.get("properties") or {}
        is_free = not properties and tool.parameters.get("additionalProperties", True) is not False
        if self.shape.arguments == "tags" and (is_free or not tool.is_checked):
            return {"type": "any_text"}
        if not tool.is_checked:
            loose = {name: _loose(tool.parameters, name) for name in properties}
            tool = replace(tool, parameters={"properties": loose}, is_checked=True)
            properties = loose
        required = [name for name in tool.parameters.get("required") or [] if name in properties]
        optional = [name for name in properties if name not in required]
        # What is said of any of them is said of the tool's parameters.
        self.origins[place] = tool.origin
        join = _tagged if self.shape.arguments == "tags" else _pairs
        return join(
            [self._argument(tool, name, properties[name]) for name in required],
            [self._argument(tool, name, properties[name]) for name in optional],
        )

    def _argument(self, tool: ForcedTool, name: str, schema: Any) -> Form:
        shape = self.shape
        known = property_schema(tool.parameters, name)
        is_string = "string" in types_of(known)
        before, after = shape.argument
        before = before.replace("KEY", name).replace("IS_TEXT", "true" if is_string else "false")
        quoted_before, quoted_after = before + shape.quote, shape.quote + after
        text: Form = {
            "type": "tag",
            "begin": quoted_before,
            "content": {"type": "any_text"},
            "end": quoted_after,
        }
        if not is_string or not (shape.arguments == "tags" or shape.quote):
            value: Form = {"type": "json_schema", "json_schema": _alone(schema, tool)}
            json_form = sequence([*const(before), value, *const(after)])
            return either([json_form, text]) if shape.quote and not types_of(known) else json_form
        values = known.get("enum", [known["const"]] if "const" in known else None)
        if isinstance(values, list) and values and all(isinstance(value, str) and value for value in values):
            content = either([{"type": "const_string", "value": value} for value in values])
            return sequence([*const(quoted_before), content, *const(quoted_after)])
        return text

    def _schema(self, schema: Any, tool: ForcedTool, place: str) -> Form:
        self.origins[place] = tool.origin
        return {"type": "json_schema", "json_schema": dict(schema) if isinstance(schema, Mapping) else {}}


def sequence(forms: list[Form]) -> Form:
    return forms[0] if len(forms) == 1 else {"type": "sequence", "elements": forms or [NOTHING]}


def either(forms: list[Form]) -> Form:
    return forms[0] if len(forms) == 1 else {"type": "or", "elements": forms}


def const(text: str) -> list[Form]:
    return [{"type": "const_string", "value": text}] if text else []


def _tagged(required: list[Form], optional: list[Form]) -> Form:
    return sequence([*required, *(either([form, NOTHING]) for form in optional)])


def _pairs(required: list[Form], optional: list[Form]) -> Form:
    comma = const(", ")
    followers = [either([sequence([*comma, form]), NOTHING]) for form in optional]
    if required:
        joined = [required[0]]
        for form in required[1:]:
            joined += [*comma, form]
        return sequence([*joined, *followers])
    return either(
        [NOTHING, *(sequence([form, *followers[index + 1 :]]) for index, form in enumerate(optional))]
    )


def _loose(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What has to be known of a property to write any value of it."""
    return {"type": "string"} if types_of(property_schema(parameters, name)) == {"string"} else {}


def _alone(schema: Any, tool: ForcedTool) -> dict[str, Any]:
    """A property's schema without the others, with what it may refer to."""
    if not isinstance(schema, Mapping):
        return {}
    shared = {key: tool.parameters[key] for key in ("$defs", "definitions") if key in tool.parameters}
    return {**shared, **schema}
