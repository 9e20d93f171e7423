"""However a stream is cut, it says the same; whatever it holds, nothing raises."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parsing_samples import SAMPLES, fed, machine, said

from octavo.server.parsing import channels
from octavo.server.parsing.formats.table import TOOL_FORMATS
from octavo.server.parsing.reasoning import REASONING_FORMATS

COMMON = [
    "{", "}", "[", "]", '"', "\\", '"name"', ": ", ", ", '"arguments"', '"parameters"', "get_weather", "now",
    "(", ")", "=", "city", "days", "\n", " ", "\t \n", "3", "-1.5e3", "True", "null", "'", "é", "😀",
    "\\u00e9", "\\ud83d", "<", "</", ">", "call:", "functions.", "|", "x" * 50, "<think>", "</think>",
    '"function"', ";",     "```", '"""', "\\", "\x00", "\u2028", " " * 300,
]  # fmt: skip


def soup(name: str) -> st.SearchStrategy[str]:
    """Text out of a format's own markers, whole and broken off, and what stands between them."""
    marks = [mark for mark in TOOL_FORMATS[name].literals if mark]
    if name == "gpt-oss":
        marks += [*channels.LITERALS, " to=functions.now", "analysis", "commentary", "final"]
    halves = [mark[: len(mark) // 2] for mark in marks]
    atoms = st.sampled_from([*COMMON, *marks, *marks, *halves, SAMPLES[name][0]])
    return st.lists(st.one_of(atoms, st.text(max_size=5)), max_size=25).map("".join)


@st.composite
def cut_soup(draw: st.DrawFn, name: str) -> tuple[str, list[str]]:
    text = draw(soup(name))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    bounds = [0, *cuts, len(text)]
    return text, [text[a:b] for a, b in itertools.pairwise(bounds)]


@pytest.mark.parametrize("name", TOOL_FORMATS)
def test_any_split_says_the_same(name: str) -> None:
    reasonings = ["gpt-oss"] if name == "gpt-oss" else [None, "think", "granite-think"]

    @settings(max_examples=60, deadline=None)
    @given(cut=cut_soup(name), reasoning=st.sampled_from(reasonings), is_open=st.booleans())
    def check(cut: tuple[str, list[str]], reasoning: str | None, is_open: bool) -> None:
        text, pieces = cut
        options = {"is_open": is_open and reasoning is not None}
        whole = said(fed(machine(name, reasoning, **options), [text]))
        assert said(fed(machine(name, reasoning, **options), pieces)) == whole
        assert said(fed(machine(name, reasoning, **options), list(text))) == whole
        _check_well_formed(whole)

    check()


@pytest.mark.parametrize("name", REASONING_FORMATS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_split_of_reasoning_says_the_same(name: str, data: st.DataObject) -> None:
    marks = list(REASONING_FORMATS[name].literals) or ["<think>"]
    if name == "gpt-oss":
        marks += list(channels.LITERALS)
    atoms = st.sampled_from([*marks, *(mark[:-2] for mark in marks), "word", " ", "\n", "<", "analysis"])
    text = data.draw(st.lists(atoms, max_size=25).map("".join))
    is_open = data.draw(st.booleans())
    whole = said(fed(machine(None, name, is_open=is_open), [text]))
    assert said(fed(machine(None, name, is_open=is_open), list(text))) == whole


def _check_well_formed(found: list[tuple[str, object]]) -> None:
    """Each call begins, has its arguments and ends, before anything else is said."""
    inside = False
    for kind, _ in found:
        if kind == "call":
            assert not inside
            inside = True
        elif kind == "end":
            assert inside
            inside = False
        elif kind == "arguments":
            assert inside
        else:
            assert not inside
    assert not inside
