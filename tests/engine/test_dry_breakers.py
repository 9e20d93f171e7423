"""Breakers in a vocabulary: which tokens hold one, which begin one, and what has to follow."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo import RequestError, SamplingParams
from octavo.engine import dry_breakers
from octavo.engine.dry_breakers import BYTES_PER_HEAD, BreakerFinder
from octavo.messages.samplers import DryBreakers

WORDS = ["a", "b", "ab", "ba", "aab", "b:", ":", "x:y", "\n", "ab\n", "é", "", "bab"]


class Words:
    """A vocabulary of these words; text is split into characters."""

    vocab_size = len(WORDS)

    def token_bytes(self, token_id: int) -> bytes:
        return WORDS[token_id].encode()

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [WORDS.index(character) if character in WORDS else 99 for character in text]


def found(breakers: Sequence[str]) -> set[tuple[str, tuple[int, ...]]]:
    """(word, tail) of all heads."""
    result = BreakerFinder(Words()).find(breakers)  # type: ignore[arg-type]
    return {
        (WORDS[head], tuple(tail))
        for head, bits in zip(result.head_ids, result.head_tails, strict=True)
        for number, tail in enumerate(result.tails)
        if bits >> number & 1
    }


def reference(breakers: Sequence[str]) -> set[tuple[str, tuple[int, ...]]]:
    """llama.cpp's search, a token at a time."""
    heads = set()
    for word in WORDS:
        for breaker in breakers:
            if breaker in word:
                heads.add((word, ()))
                continue
            for length in range(1, len(breaker)):
                if word.endswith(breaker[:length]):
                    heads.add((word, tuple(Words().encode(breaker[length:]))))
    return heads


def test_a_token_holds_a_breaker_wherever_it_stands_in_it() -> None:
    assert found([":", "\n"]) == {(word, ()) for word in ("b:", ":", "x:y", "\n", "ab\n")}


def test_a_breaker_may_begin_in_one_token_and_go_on_in_the_next() -> None:
    assert found(["bab"]) == reference(["bab"])
    assert ("ab", (WORDS.index("a"), WORDS.index("b"))) in found(["bab"])


def test_characters_of_several_bytes_stay_whole() -> None:
    assert found(["é"]) == {("é", ())}


@settings(max_examples=100, deadline=None)
@given(breakers=st.lists(st.text(alphabet="ab:\n", min_size=1, max_size=4), max_size=3))
def test_any_breakers_equal_the_search_token_by_token(breakers: list[str]) -> None:
    assert found(breakers) == reference(breakers)


def test_what_was_found_is_kept_within_bounds(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(BreakerFinder(tokenizer).find(["a"]).head_ids)
    monkeypatch.setattr(dry_breakers, "CACHE_BYTES", 10 * BYTES_PER_HEAD * (size + 1))
    finder = BreakerFinder(tokenizer)
    first = finder.find(["a"])
    assert finder.find(["a", "a"]) is first
    for number in range(100):
        finder.find(["a", f"{number:03d}"])
    assert 0 < len(finder._found) <= 10
    assert finder.find(["a"]) == first
    assert set(first.head_ids) > {*tokenizer.encode("a")}  # and a special token with an a in it


def test_too_many_pieces_are_refused() -> None:
    breaker = "abcdefghijklmnopqrstuvwxyz0123456789"

    class Beginnings:
        vocab_size = len(breaker)

        def token_bytes(self, token_id: int) -> bytes:
            return breaker[: token_id + 1].encode()

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [ord(character) for character in text]

    with pytest.raises(RequestError) as caught:
        BreakerFinder(Beginnings()).find([breaker])  # type: ignore[arg-type]
    assert caught.value.param == "dry_sequence_breakers"


async def test_the_event_loop_does_not_search(make_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    searchers: list[int] = []
    search = BreakerFinder._search

    def noted(finder: BreakerFinder, breakers: tuple[str, ...]) -> DryBreakers:
        searchers.append(threading.get_ident())
        return search(finder, breakers)

    monkeypatch.setattr(BreakerFinder, "_search", noted)
    engine = await make_engine()
    params = SamplingParams(dry_multiplier=0.8, dry_sequence_breakers=["b", "a b"], max_tokens=1)
    await engine.make_ready(params)
    await engine.make_ready(SamplingParams(max_tokens=1))
    await engine.generate([1, 2], params).aclose()
    assert len(searchers) == 1 and searchers[0] != threading.get_ident()
    await engine.shutdown()
