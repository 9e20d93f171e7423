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
