"""Rows 2.4: tools, and what models write where they call them."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from octavo.server.parsing.formats.table import TOOL_FORMATS
from octavo.server.parsing.machine import AnswerReader, Machine
from octavo.server.parsing.output import Output
from tests.attacks.arena import Arena
from tests.attacks.row import Row, case
from tests.attacks.send import IN_TIME, refused_or_done


def tool(name: Any = "f", description: str = "", parameters: Any = None) -> dict[str, Any]:
    function = {"name": name, "description": description}
    return {
        "type": "function",
        "function": function if parameters is None else {**function, "parameters": parameters},
    }


def tools(*all_tools: Any, choice: Any = "required") -> dict[str, Any]:
    return {"tools": list(all_tools), "tool_choice": choice}


LARGE = {
    "type": "object",
    "properties": {f"p{i}": {"type": "string", "description": "x" * 50} for i in range(2_000)},
}
EXPLODING = {"type": "object", "properties": {"x": {"type": "string", "pattern": "(a+)+b{1,9999}"}}}
TOOLS = {
    "1,000 tools": tools(*(tool(f"f{i}") for i in range(1_000))),
    "descriptions of 1 MB": tools(tool(description="x" * 2**20)),
    "names twice": tools(tool(), tool()),
    "a quote in a name": tools(tool('f"x')),
    "a line break in a name": tools(tool("f\nx")),
    "regex in a name": tools(tool("f.*(")),
    "a long name": tools(tool("f" * 10_000)),
    "an empty name": tools(tool("")),
    "a number for a name": tools(tool(5)),
    "parameters of 200 kB": tools(tool(parameters=LARGE)),
    "parameters that are none": tools(tool(parameters=5)),
    "a pattern that explodes": tools(tool(parameters=EXPLODING)),
    "a type that is none": tools(tool(parameters={"type": 5})),
    "no function": tools({"type": "function"}),
    "no list": {"tools": {"a": 1}},
}


def texts(size: int) -> dict[str, str]:
    """What a model may be made to write, of about this many characters."""
    return {
        "openings": "<tool_call>" * (size // 11),
        "an unclosed call": '<tool_call>{"name": "f", "arguments": {"x": "' + "y" * size,
        "nested quotes": '<tool_call>{"name": "f", "arguments": {"x": "' + '\\"' * (size // 2),
        "nested brackets": '<tool_call>{"name": "f", "arguments": ' + "[" * size,
        "closings first": "</tool_call>" * (size // 12),
        "angle brackets": "<" * size,
        "nearly an opening": "<tool_cal" * (size // 9),
        "names behind calls": '<tool_call>{"arguments": {"a": ' + "1" * size + '}, "name": "f"}</tool_call>',
        "calls": '<tool_call>{"name": "f", "arguments": {}}</tool_call>' * (size // 54),
    }


def parsing_s(name: str, text: str) -> float:
    """Seconds of this thread to read a text in pieces of four characters, the best of two."""
    best = float("inf")
    for _ in range(2):
        output = Output(make_id=lambda: "id", schemas={"f": {"type": "object"}}, max_calls=None)
        machine = Machine(AnswerReader(TOOL_FORMATS[name], None, starts_in_reasoning=False), output)
        began = time.thread_time()
        for start in range(0, len(text), 4):
            machine.feed(text[start : start + 4])
        machine.finish()
        best = min(best, time.thread_time() - began)
    return best


def linear_parsers(arena: Arena) -> None:
    """Twice as much takes twice as long (at most 2.6 times, and what takes no time is not compared)."""
    size = arena.many(20_000, 5_000)
    slow = []
    for name in TOOL_FORMATS:
        for what, text in texts(size).items():
            once, twice = parsing_s(name, text), parsing_s(name, texts(2 * size)[what])
            if twice > 0.05 and twice > 2.6 * once:
                slow.append(f"{name}, {what}: {once:.3f} s, then {twice:.3f} s")
    assert not slow, "; ".join(slow)


row = partial(case, budget_ms=15_000, with_victim=True)
ROWS: tuple[Row, ...] = (
    row("G10", "odd tools", refused_or_done(TOOLS), IN_TIME, stall_ms=150),
    row(
        "G11",
        "what models are made to write",
        linear_parsers,
        "read in linear time by every format",
        with_victim=False,
        budget_ms=240_000,
        only_full=True,
    ),
)
