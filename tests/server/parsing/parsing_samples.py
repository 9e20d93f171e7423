"""Answers in every format, and what has to be read in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from octavo.server.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallBegin,
    ToolCallEnd,
)
from octavo.server.parsing.formats.table import TOOL_FORMATS
from octavo.server.parsing.machine import AnswerReader, Machine
from octavo.server.parsing.output import Output
from octavo.server.parsing.reasoning import REASONING_FORMATS

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "where": {"type": "object"},
        "note": {"type": ["string", "null"]},
    },
    "required": ["city"],
}
SCHEMAS: dict[str, Any] = {"get_weather": WEATHER, "now": {"type": "object", "properties": {}}}

Said = list[tuple[str, Any]]
"""('content', text), ('reasoning', text), ('call', name), ('arguments', text), ('end', is_complete)."""

_V3 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"

PARIS = ("call", "get_weather"), ("arguments", '{"city": "Paris"}'), ("end", True)
PARIS_3 = ("call", "get_weather"), ("arguments", '{"city": "Paris", "days": 3}'), ("end", True)
NOW = ("call", "now"), ("arguments", "{}"), ("end", True)

SAMPLES: dict[str, tuple[str, Said]] = {
    "hermes": (
        'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        [("content", "I look."), *PARIS, *NOW],
    ),
    "longcat": (
        '<longcat_tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</longcat_tool_call>',
        [*PARIS],
    ),
    "jamba": (
        '<tool_calls>[\n  {"name": "get_weather", "arguments": {"city": "Paris"}},\n'
        '  {"name": "now", "arguments": {}}\n]</tool_calls>',
        [*PARIS, *NOW],
    ),
    "json": ('{"name": "get_weather", "arguments": {"city": "Paris"}}', [*PARIS]),
    "granite": (
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}, '
        '{"arguments": {}, "name": "now"}]',
        [*PARIS, *NOW],
    ),
    "granite-20b": (
        '<function_call> {"name": "get_weather", "arguments": {"city": "Paris"}}\n'
        '<function_call> {"name": "now", "arguments": {}}',
        [*PARIS, *NOW],
    ),
    "phi4": (
        'functools[{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "now"}]',
        [*PARIS, *NOW],
    ),
    "internlm": (
        "I look.<|action_start|><|plugin|>\n"
        '{"name": "get_weather", "parameters": {"city": "Paris"}}<|action_end|>',
        [("content", "I look."), *PARIS],
    ),
    "cohere": (
        '<|START_ACTION|>[\n  {"tool_call_id": "0", "tool_name": "get_weather", "parameters": '
        '{"city": "Paris"}},\n  {"tool_call_id": "1", "tool_name": "now", "parameters": {}}\n]<|END_ACTION|>',
        [*PARIS, *NOW],
    ),
    "llama3": (
        '{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "now", "parameters": {}}',
        [*PARIS, *NOW],
    ),
    "llama4": ("<|python_start|>[get_weather(city='Paris'), now()]<|python_end|>", [*PARIS, *NOW]),
    "pythonic": ('[get_weather(city="Paris", days=3), now()]', [*PARIS_3, *NOW]),
    "olmo3": ('<function_calls>get_weather(city="Paris")\nnow()</function_calls>', [*PARIS, *NOW]),
    "lfm2": (
        '<|tool_call_start|>[get_weather(city="Paris", days=3)]<|tool_call_end|>Checking.',
        [*PARIS_3, ("content", "Checking.")],
    ),
    "mistral-v3": (
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}, '
        '{"name": "now", "arguments": {}}]',
        [*PARIS, *NOW],
    ),
    "mistral": (
        '[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{"city": "Paris"}[TOOL_CALLS]now[ARGS]{}',
        [*PARIS, *NOW],
    ),
    "deepseek-v3": (
        f'{_V3}function<｜tool▁sep｜>get_weather\n```json\n{{"city": "Paris"}}\n```<｜tool▁call▁end｜>\n'
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        [*PARIS, *NOW],
    ),
    "deepseek-v3.1": (
        f'I look.{_V3}get_weather<｜tool▁sep｜>{{"city": "Paris"}}<｜tool▁call▁end｜>'
        "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [("content", "I look."), *PARIS, *NOW],
    ),
    "deepseek-v3.2": (
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
        '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n'
        '<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        [*PARIS_3, *NOW],
    ),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0"
        '<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|><|tool_call_begin|>functions.now:1'
        "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
        [*PARIS, *NOW],
    ),
    "function-tag": (
        '<function=get_weather>{"city": "Paris"}</function>\n<function=now>{}</function>',
        [*PARIS, *NOW],
    ),
    "qwen3-coder": (
        "I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n"
        "</function>\n</tool_call>",
        [("content", "I look."), *PARIS_3, *NOW],
    ),
    "seed-oss": (
        "<seed:tool_call>\n<function=get_weather>\n<parameter=city>Paris</parameter>\n"
        "<parameter=days>3</parameter>\n</function>\n</seed:tool_call>",
        [*PARIS_3],
    ),
    "glm": (
        "I look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now</tool_call>",
        [("content", "I look."), *PARIS_3, *NOW],
    ),
    "minimax": (
        '<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        '<parameter name="days">3</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n'
        "</minimax:tool_call>",
        [*PARIS_3, *NOW],
    ),
    "gemma3": (
        'Sure.\n```tool_code\nget_weather(city="Paris", days=3)\nnow()\n```',
        [("content", "Sure."), *PARIS_3, *NOW],
    ),
    "functiongemma": (
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>"
        "<start_function_call>call:now{}<end_function_call><start_function_response>",
        [*PARIS_3, *NOW],
    ),
    "gemma4": (
        '<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,days:3}<tool_call|><|tool_call>call:now{}'
        "<tool_call|><|tool_response>",
        [*PARIS_3, *NOW],
    ),
    "gpt-oss": (
        "<|channel|>analysis<|message|>I look.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
        [("reasoning", "I look."), *PARIS],
    ),
}


def reasoning_for(name: str) -> str | None:
    """The reasoning that a format of calls cannot do without."""
    return "gpt-oss" if name == "gpt-oss" else None


def machine(
    tools: str | None,
    reasoning: str | None = None,
    *,
    is_open: bool = False,
    schemas: dict[str, Any] | None = None,
    max_calls: int | None = None,
) -> Machine:
    reader = AnswerReader(
        TOOL_FORMATS[tools] if tools else None,
        REASONING_FORMATS[reasoning] if reasoning else None,
        starts_in_reasoning=is_open,
    )
    return Machine(reader, Output(schemas=SCHEMAS if schemas is None else schemas, max_calls=max_calls))


def fed(reader: Machine, pieces: Iterable[str]) -> list[Event]:
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.finish()


def said(events: Sequence[Event]) -> Said:
    """Events without ids, neighbours of one kind joined."""
    joined: Said = []
    for event in events:
        kind, value = _plain(event)
        if joined and joined[-1][0] == kind and kind in ("content", "reasoning", "arguments"):
            joined[-1] = (kind, joined[-1][1] + value)
        else:
            joined.append((kind, value))
    return joined


def _plain(event: Event) -> tuple[str, Any]:
    match event:
        case ContentDelta(text):
            return "content", text
        case ReasoningDelta(text):
            return "reasoning", text
        case ToolCallBegin():
            return "call", event.name
        case ToolArgumentsDelta():
            return "arguments", event.text
        case ToolCallEnd():
            return "end", event.is_complete


def read(tools: str | None, text: str, reasoning: str | None = None, size: int = 0, **options: Any) -> Said:
    """What is read in `text`, which comes in pieces of `size` (0: at once)."""
    size = size or len(text) or 1
    pieces = (text[start : start + size] for start in range(0, len(text), size))
    return said(fed(machine(tools, reasoning, **options), pieces))
