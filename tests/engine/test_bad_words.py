"""Which token sequences stand for a word that must not be said."""

from __future__ import annotations

from typing import Any

import pytest

from octavo import SamplingParams


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("no", ["no"]),
        (" no", ["no"]),
        ("\n", ["\n"]),
        (" ", [" "]),
        ("\n\n", ["\n\n"]),
    ],
)
async def test_every_word_has_a_spelling(make_engine: Any, word: str, expected: list[str]) -> None:
    """White space alone is a word, too. The tokenizer has one token for each byte."""
    engine = await make_engine()
    prepared = engine._preparer.prepare([1], SamplingParams(bad_words=[word]))
    spellings = prepared.samples[0].params.bad_words_token_ids
    assert [engine.tokenizer.decode(token_ids) for token_ids in spellings] == expected
    await engine.shutdown()


class Words:
    """A word behind a space is often fewer tokens than at the start of a text."""

    IDS = {"elephant": [1, 2], " elephant": [3], "cat": [4], " cat": [5, 4], "dog": [6], " dog": [7]}

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return self.IDS[text]


@pytest.mark.parametrize(
    ("word", "expected"), [("elephant", [[1, 2], [3]]), (" cat", [[4]]), ("dog", [[6], [7]])]
)
async def test_the_spelling_behind_a_space(make_engine: Any, word: str, expected: list[list[int]]) -> None:
    engine = await make_engine()
    engine._preparer.words._tokenizer = Words()
    assert engine._preparer.words.spellings([word]) == expected
    await engine.shutdown()
