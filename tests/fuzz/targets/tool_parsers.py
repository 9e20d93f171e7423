"""What models write: content, reasoning and calls in every format, however the stream is cut.

Invariants: a stream says what the whole says, events are well formed, and text is never lost or made up.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

from octavo.server.parsing import channels
from octavo.server.parsing.formats.table import TOOL_FORMATS
from octavo.server.parsing.reasoning import REASONING_FORMATS
from tests.fuzz.mutate import text_mutator
from tests.fuzz.target import Run, Target
from tests.server.parsing.parsing_samples import SAMPLES, Said, fed, machine, reasoning_for, said

TOOLS = sorted(TOOL_FORMATS)
REASONINGS = (None, *sorted(REASONING_FORMATS))


def opened(folder: Path) -> Run:
    """The first three bytes choose the formats and where the stream is cut."""

    def run(data: bytes) -> None:
        if len(data) < 3:
            return
        tools = TOOLS[data[0] % len(TOOLS)]
        reasoning = reasoning_for(tools) if tools == "gpt-oss" else REASONINGS[data[1] % len(REASONINGS)]
        if reasoning == "gpt-oss" and tools != "gpt-oss":
            reasoning = None
        is_open = reasoning is not None and data[2] % 2 == 1
        check(tools, reasoning, is_open, data[3:].decode("utf-8", "replace"), Random(data[2]))

    return run


def check(tools: str | None, reasoning: str | None, is_open: bool, text: str, rng: Random) -> None:
    whole = said(fed(machine(tools, reasoning, is_open=is_open), [text]))
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(rng.randrange(12)))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    for parts in (pieces, list(text)):
        assert said(fed(machine(tools, reasoning, is_open=is_open), parts)) == whole
    _check_well_formed(whole)
    _check_nothing_lost(tools, reasoning, text, whole)


def _check_well_formed(found: Said) -> None:
    inside = False
    for kind, value in found:
        if kind == "call":
            assert not inside and value
            inside = True
        elif kind == "end":
            assert inside
            inside = False
        elif kind == "arguments":
            assert inside
        else:
            assert not inside and value
    assert not inside


def _check_nothing_lost(tools: str | None, reasoning: str | None, text: str, found: Said) -> None:
    """Text is what was written, in its order, but for markers; white space around these is layout."""
    if "gpt-oss" in (tools, reasoning):
        return  # Its headers are no text either.
    told = _dense("".join(value for kind, value in found if kind in ("content", "reasoning")))
    assert _is_within(told, _dense(text)), "text was made up"
    if any(kind == "call" for kind, _ in found):
        return
    literals = (*(TOOL_FORMATS[tools].literals if tools else ()),)
    literals += REASONING_FORMATS[reasoning].literals if reasoning else ()
    may_go = set()
    for literal in filter(None, map(_dense, literals)):
        for match in re.finditer(f"(?={re.escape(literal)})", _dense(text)):
            may_go.update(range(match.start(), match.start() + len(literal)))
    stays = "".join(char for index, char in enumerate(_dense(text)) if index not in may_go)
    assert _is_within(stays, told), "text was lost"


def _dense(text: str) -> str:
    return "".join(text.split())


def _is_within(part: str, whole: str) -> bool:
    """Whether the characters of `part` come in this order in `whole`."""
    characters = iter(whole)
    return all(char in characters for char in part)


WORDS = sorted({
    *(mark for form in TOOL_FORMATS.values() for mark in form.literals if mark),
    *(mark for form in REASONING_FORMATS.values() for mark in form.literals if mark),
    *channels.LITERALS, " to=functions.now", "analysis", "commentary", "final", "get_weather", "now",
    '"name"', '"city"',
    '"arguments"', '"parameters"', "{", "}", "[", "]", '"', "\\", ": ", ", ", "(", ")", "=", "\n", "'",
    "\\u00e9",
    "\\ud83d", "<", "</", ">", "call:", "functions.", "|", "```", "x" * 300, " " * 300, "True", "null",
    "-1.5e3", "\0",
})  # fmt: skip
_TEXT = text_mutator(WORDS)


def mutate(data: bytes, rng: Random) -> bytes:
    head = rng.randbytes(3) if rng.random() < 0.2 else data[:3]
    return head + _TEXT(data[3:], rng)


def seeds() -> Iterator[bytes]:
    for index, name in enumerate(TOOLS):
        text, _ = SAMPLES[name]
        yield bytes([index, 1, 0]) + text.encode()
        yield bytes([index, 2, 1]) + f"I think.</think>\n\nWell. {text}".encode()


TARGET = Target(open=opened, seeds=seeds, mutate=mutate, max_bytes=4096)
