"""Which formats a model writes, found out from its chat template. The reasons are there to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from octavo.base.errors import ConfigError
from octavo.server.parsing.formats.contract import ToolFormat
from octavo.server.parsing.formats.json_tags import HERMES
from octavo.server.parsing.formats.table import ALIASES, TOOL_FORMATS
from octavo.server.parsing.reasoning import REASONING_ALIASES, REASONING_FORMATS, ReasoningFormat
from octavo.server.parsing.regions import Regions, read_regions

AUTO, NONE, OWN = "auto", "none", "response_template"
_TOOLS = re.compile(r"\b(?:tools|functions|custom_tools)\b")


@dataclass(frozen=True, kw_only=True)
class Detected:
    """What is known of a template's model, each with its reason."""

    tools: ToolFormat | None
    tools_reason: str
    reasoning: ReasoningFormat | None
    reasoning_reason: str
    shows_tools: bool
    """The template can tell the model which tools there are."""
    takes_regions: bool
    """Nothing better than the checkpoint's own response_template would say is known."""
    regions: Regions | None = None
    """The checkpoint's own response_template, where it counts."""

    @property
    def tools_name(self) -> str:
        if self.regions is not None:
            return OWN
        return NONE if self.tools is None else self.tools.name

    @property
    def reasoning_name(self) -> str:
        if self.regions is not None:
            return OWN
        return NONE if self.reasoning is None else self.reasoning.name


def with_regions(found: Detected, response_template: dict[str, Any] | None) -> Detected:
    """The same with the checkpoint's own response_template where nothing better is known."""
    if response_template is None or not found.takes_regions:
        return found
    why = "the checkpoint has a response_template, and the chat template no format's signs"
    regions = read_regions(response_template)
    return replace(found, regions=regions, tools_reason=why, reasoning_reason=why)


@lru_cache(maxsize=64)
def detect(template: str | None, tool_wish: str = AUTO, reasoning_wish: str = AUTO) -> Detected:
    """Look for the formats' signs in a template, unless the wishes name formats. Raises ConfigError."""
    source = _without_comments(template or "")
    shows_tools = _TOOLS.search(source) is not None
    is_sure = tool_wish != AUTO or reasoning_wish != AUTO
    tools, tools_reason = _wished(tool_wish, TOOL_FORMATS, ALIASES, "tool_call_parser")
    if tool_wish == AUTO:
        tools, tools_reason = _tools(source, shows_tools)
    reasoning, reasoning_reason = _wished(
        reasoning_wish, REASONING_FORMATS, REASONING_ALIASES, "reasoning_parser"
    )
    if reasoning_wish == AUTO:
        reasoning, reasoning_reason = _reasoning(source)
    found = _by_sign(TOOL_FORMATS.values(), source) if shows_tools else reasoning
    return Detected(
        takes_regions=not is_sure and found is None,
        tools=tools,
        tools_reason=tools_reason,
        reasoning=reasoning,
        reasoning_reason=reasoning_reason,
        shows_tools=shows_tools,
    )


def _without_comments(template: str) -> str:
    kept, position = [], 0
    while (begin := template.find("{#", position)) >= 0:
        end = template.find("#}", begin + 2)
        if end < 0:
            break
        kept.append(template[position:begin])
        position = end + 2
    return "".join([*kept, template[position:]])


def _tools(source: str, shows_tools: bool) -> tuple[ToolFormat | None, str]:
    if not shows_tools:
        return None, "the chat template does not show tools to the model"
    found = _by_sign(TOOL_FORMATS.values(), source)
    return found or (
        HERMES,
        "the chat template shows tools but no format's signs; this is the most common one",
    )


def _reasoning(source: str) -> tuple[ReasoningFormat | None, str]:
    return _by_sign(REASONING_FORMATS.values(), source) or (
        None,
        "the chat template has no signs of reasoning",
    )


class _Signed(Protocol):
    @property
    def signs(self) -> tuple[tuple[str, ...], ...]: ...


S = TypeVar("S", bound=_Signed)
F = TypeVar("F")


def _by_sign(formats: Iterable[S], source: str) -> tuple[S, str] | None:
    """The first format whose signs the template has, and which they are."""
    # Templates write quotation marks of JSON with a backslash where they stand in a string.
    plain = source.replace('\\"', '"')
    for entry in formats:
        for group in entry.signs:
            if all(sign in plain for sign in group):
                return entry, f"the chat template has {' and '.join(group)}"
    return None


def _wished(
    wish: str, formats: Mapping[str, F], aliases: Mapping[str, str], option: str
) -> tuple[F | None, str]:
    name = aliases.get(wish, wish)
    if name in (AUTO, NONE):
        return None, f"{option} is {name}"
    if name not in formats:
        raise ConfigError(
            f"There is no {option} {wish!r}. Allowed: {AUTO}, {NONE}, {', '.join(sorted(formats))}.",
            param=option,
        )
    return formats[name], f"named by {option}"
