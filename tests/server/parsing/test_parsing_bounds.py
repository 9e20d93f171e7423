"""Time in proportion to the text, and bounded memory, for text made to hurt."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from parsing_samples import SAMPLES, fed, machine, read, reasoning_for

from octavo.server.parsing.events import ContentDelta, ToolArgumentsDelta
from octavo.server.parsing.formats.table import TOOL_FORMATS
from octavo.server.parsing.scanner import MAX_RECORD

UNITS = ["<", "{", '"\\', " ", '{"name":"', "[[", "a("]
TYPICAL = ("hermes", "qwen3-coder", "pythonic", "gpt-oss")


def _num_calls(run: Callable[[], Any]) -> int:
    """Functions called: work that does not depend on how busy the machine is."""
    count = 0

    def note(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def _units(name: str) -> list[str]:
    return [*TOOL_FORMATS[name].opens, *TOOL_FORMATS[name].starts, *UNITS, SAMPLES[name][0]]


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_work_grows_with_length_only(name: str) -> None:
    reasoning = reasoning_for(name) or "think"
    for unit in _units(name):
        text = unit * max(2, 1500 // len(unit))
        for size in (0, 5):
            half = _num_calls(lambda: read(name, text, reasoning, size))  # noqa: B023
            whole = _num_calls(lambda: read(name, text * 2, reasoning, size))  # noqa: B023
            assert whole <= 2.2 * half + 200, (unit, size)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in TYPICAL else pytest.mark.slow) for name in TOOL_FORMATS]
)
def test_a_megabyte_is_read_quickly(name: str) -> None:
    reasoning = reasoning_for(name) or "think"
    for unit in [TOOL_FORMATS[name].opens[0] if TOOL_FORMATS[name].opens else "{", '"\\', " ", "{"]:
        text = unit * (1_000_000 // len(unit))
        began = time.perf_counter()
        read(name, text, reasoning)
        read(name, text[:100_000], reasoning, 4)
        assert time.perf_counter() - began < 20.0, unit


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_what_is_held_is_bounded(name: str) -> None:
    """Behind any opening, text comes out again after MAX_RECORD characters at the latest."""
    opens = [*TOOL_FORMATS[name].opens, *TOOL_FORMATS[name].starts]
    for begin in [*opens, *(mark + ' {"name": "' for mark in opens), *(mark + '[{"x": "' for mark in opens)]:
        reader = machine(name, reasoning_for(name))
        text, length = begin + "y" * (2 * MAX_RECORD), 0
        for start in range(0, len(text), 1000):
            for event in reader.feed(text[start : start + 1000]):
                assert isinstance(event, ContentDelta | ToolArgumentsDelta)
                length += len(event.text)
        assert length >= len(text) - MAX_RECORD - 100


def test_deep_nesting_ends_the_call() -> None:
    text = '<tool_call>{"name": "now", "arguments": ' + "[" * 100_000
    found = read("hermes", text)
    assert found[0] == ("call", "now") and ("end", False) in found
    deep = "[now(a=" + "[" * 100_000
    assert ("end", False) in read("pythonic", deep)
    assert read("qwen3-coder", "<function=now><parameter=a>" + "[" * 100_000 + "</parameter></function>")


def test_a_hundred_thousand_markers() -> None:
    text = "<tool_call>" * 20_000
    (entry,) = read("hermes", text)
    assert entry == ("content", text)


def test_every_call_of_a_long_answer() -> None:
    text, _ = SAMPLES["hermes"]
    assert sum(kind == "call" for kind, _ in read("hermes", text * 500, size=11)) == 1000


def test_feeding_after_nothing() -> None:
    assert fed(machine("hermes"), []) == []
    assert fed(machine("hermes"), ["", "", "a", ""]) == [ContentDelta("a")]
