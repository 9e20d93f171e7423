"""What takes long to make of a caller's words is made once for all prompts, beside the event loop."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from octavo import SamplingParams
from octavo.engine import callers_words
from octavo.engine.callers_words import CallersWords
from octavo.tokens.stop_strings import StopAutomaton

MANY = SamplingParams(
    max_tokens=1,
    stop=["x" * 300 + str(number) for number in range(4)],
    bad_words=[f"word {number}" for number in range(100)],
)


async def test_the_event_loop_makes_nothing_that_takes_long(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 prompts with the longest stop strings held it for 12 s, and with as many bad words for longer."""
    makers: list[int] = []

    class Automaton(StopAutomaton):
        def __init__(self, stops: Any) -> None:
            makers.append(threading.get_ident())
            super().__init__(stops)

    spell = CallersWords._spell

    def noted(words: CallersWords, key: tuple[str, ...]) -> list[list[int]]:
        makers.append(threading.get_ident())
        return spell(words, key)

    monkeypatch.setattr(callers_words, "StopAutomaton", Automaton)
    monkeypatch.setattr(CallersWords, "_spell", noted)
    engine = await make_engine()
    await engine.make_ready(MANY)
    for prompt in range(5):
        outputs = [output async for output in engine.generate([prompt], MANY)]
        assert len(outputs[-1].outputs[0].token_ids) == 1
    assert len(makers) == 2 and threading.get_ident() not in makers
    await engine.shutdown()


def test_few_words_are_not_worth_a_thread(tokenizer: Any) -> None:
    words = CallersWords(tokenizer)
    assert not words.takes_long(SamplingParams(stop=["\n\n", "User:"], bad_words=["no"]))
    assert words.takes_long(MANY)
    assert words.takes_long(SamplingParams(dry_multiplier=0.8))


def test_what_was_made_is_kept_within_bounds(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers_words, "CACHE_BYTES", 10_000)
    words = CallersWords(tokenizer)
    assert words.stops(["a", "b"]) is words.stops(["a", "b"]) is not words.stops(["b", "a"])
    assert words.stops([]) is None and words.spellings([]) == []
    for number in range(100):
        words.stops([f"{number:09d}"])
        words.spellings([f"{number:09d}"])
    assert 0 < len(words._stops) <= 10 and 0 < len(words._spellings) <= 20
