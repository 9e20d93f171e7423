"""Stop strings: the text decides, never the way it was cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.tokens.stop_strings import StopAutomaton, StopStrings

LETTERS = st.text(alphabet="ab\n", max_size=30)


def naive(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            stop = max(ending, key=len)
            return (text[:end] if include else text[: end - len(stop)]), stop
    return text, None


def chunks_of(text: str, cuts: list[int]) -> list[str]:
    points = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:end] for start, end in pairwise(points)]


@given(
    LETTERS,
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=4),
    st.booleans(),
    st.lists(st.integers(0, 1000), max_size=8),
)
def test_any_cutting_gives_the_same(text: str, stops: list[str], include: bool, cuts: list[int]) -> None:
    finder = StopStrings(StopAutomaton(stops), include)
    shown, hit = "", None
    longest = max(map(len, stops), default=1)
    fed = 0
    for chunk in chunks_of(text, cuts):
        new, hit = finder.add(chunk)
        shown += new
        fed += len(chunk)
        if hit is None:
            assert fed - len(shown) <= longest - 1
        else:
            break
    if hit is None:
        shown += finder.flush()
    assert (shown, hit) == naive(text, stops, include)


def test_nothing_is_shown_after_a_hit() -> None:
    finder = StopStrings(StopAutomaton(["END"]), include_in_output=False)
    assert finder.add("one EN") == ("one ", None)
    assert finder.add("D two") == ("", "END")
    assert finder.add("three") == ("", "END")
    assert finder.flush() == ""


def test_included_stop_string_is_shown() -> None:
    assert StopStrings(StopAutomaton(["\n\n"]), include_in_output=True).add("a\n\nb") == ("a\n\n", "\n\n")


def test_held_back_text_comes_out_at_the_end() -> None:
    finder = StopStrings(StopAutomaton(["<|end|>"]), include_in_output=False)
    assert finder.add("x<|en") == ("x", None)
    assert finder.flush() == "<|en"
    assert finder.flush() == ""


def test_an_empty_stop_string_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="empty"):
        StopStrings(StopAutomaton([""]), include_in_output=False)


def test_only_states_with_several_successors_have_a_mapping() -> None:
    """Anybody may send 64 KiB of stop strings with each of thousands of requests."""
    assert not StopAutomaton(["x" * 1000]).branches
    assert StopAutomaton(["abcd", "abxy", "q"]).branches.keys() == {0, 2}
