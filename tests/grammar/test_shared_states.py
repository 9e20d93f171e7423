"""What rows of one grammar share while they follow it grows: it fills no memory and fails no row."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
from llguidance import LLParserLimits

from octavo.base.memory import trim_heap
from octavo.grammar import matchers as matchers_module
from octavo.grammar.compiler import GrammarCompiler
from octavo.grammar.matchers import Matchers, RowGrammar
from octavo.messages.structured import StructuredOutputsParams as Wish
from octavo.tokens.tokenizer import Tokenizer
from tests.grammar.follow import Follower
from tests.tiny import VOCAB_SIZE

LETTERS = "abcdefghij"
LONG_WAYS = "|".join(f"{letter}[a-z]{{60}}{letter}" for letter in LETTERS)
"""Each letter leads to sixty states of its own."""


@pytest.fixture
def form(compiler: GrammarCompiler) -> Wish:
    return Wish(canonical=compiler.compile(Wish(regex=f"({LONG_WAYS})")))


@pytest.fixture
def few_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for two ways, not for ten."""
    limits = LLParserLimits(max_lexer_states=200, verbose_errors=False)
    monkeypatch.setattr(matchers_module, "parser_limits", lambda: limits)


@pytest.fixture
def tokenizer(words: matchers_module.Words) -> Tokenizer:
    return words.tokenizer


def say(grammar: RowGrammar, tokens: list[int]) -> None:
    mask_MW = np.zeros((1, -(-(VOCAB_SIZE + 5) // 32)), dtype=np.int32)
    for token in tokens:
        assert grammar.fill(mask_MW, 0), grammar.failure
        assert mask_MW[0, token // 32] >> token % 32 & 1, "the mask allows it"
        grammar.take(token)
    assert grammar.failure is None


@pytest.mark.usefixtures("few_states")
def test_states_that_others_used_up_fail_nobody(matchers: Matchers, form: Wish, tokenizer: Tokenizer) -> None:
    ways = {letter: tokenizer.encode_plain(letter + "x" * 60) for letter in LETTERS}
    first = matchers.open(form, [])
    say(first, ways["a"][:30])
    for letter in LETTERS[1:]:
        say(matchers.open(form, []), ways[letter])
    say(first, ways["a"][30:])


@pytest.mark.usefixtures("few_states")
def test_a_grammar_that_is_too_large_for_one_row_fails_that_row(
    matchers: Matchers, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    regex = Wish(regex="[a-z]{2000}")
    form = Wish(canonical=compiler.compile(regex))
    for _ in range(3):  # The third would share with the second.
        with pytest.raises(AssertionError, match="too complex to follow"):
            say(matchers.open(form, []), tokenizer.encode_plain("x" * 1000))


@pytest.mark.usefixtures("few_states")
def test_forced_tokens_are_remembered_where_a_row_begins_again(
    matchers: Matchers, compiler: GrammarCompiler, tokenizer: Tokenizer
) -> None:
    regex = "|".join(f"{letter}yes{letter}[a-z]{{60}}{letter}" for letter in LETTERS)
    form = Wish(canonical=compiler.compile(Wish(regex=f"({regex})")))
    for letter in LETTERS:
        grammar = matchers.open(form, [])
        say(grammar, tokenizer.encode_plain(letter))
        jumped = grammar.jump()
        assert tokenizer.decode(jumped) == f"yes{letter}"
        say(grammar, tokenizer.encode_plain("x" * 60))


def test_following_hostile_grammars_does_not_fill_the_memory(
    follower: Follower, compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matchers_module, "KEPT", 2)

    def follow(count: int) -> None:
        wish = Wish(regex=f"@[-zz]+/\\_aaaaaaaaa~aaa\\waa(to-1_e)9_aaaa{{{count}}}\\saa[a]m")
        follower.answer(compiler.compile(wish), seed=1, max_tokens=60)

    follow(99_999)
    trim_heap()
    before = psutil.Process().memory_info().rss
    for count in range(100_000, 100_020):  # 25 MB each, if nothing is given back
        follow(count)
    trim_heap()
    assert psutil.Process().memory_info().rss - before < 150 * 2**20
