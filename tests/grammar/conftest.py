"""A byte-level vocabulary for quick tests, the default model's for the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.grammar.compiler import GrammarCompiler
from octavo.grammar.matchers import Matchers
from octavo.grammar.vocabulary import Vocabulary, Words, vocabulary_of
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import Tokenizer, load_tokenizer
from octavo.weights.checkpoint import open_checkpoint
from tests.grammar.follow import Follower
from tests.tiny import VOCAB_SIZE, save_tokenizer


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Words:
    folder = tmp_path_factory.mktemp("bytes")
    save_tokenizer(folder)
    tokenizer = load_tokenizer(TokenizerSource(folder=folder))
    return Words(tokenizer=tokenizer, eos_token_ids=tokenizer.eos_token_ids)


@pytest.fixture(scope="session")
def vocabulary(words: Words) -> Vocabulary:
    return vocabulary_of(words, VOCAB_SIZE + 5)


@pytest.fixture(scope="session")
def compiler(vocabulary: Vocabulary) -> GrammarCompiler:
    return GrammarCompiler(vocabulary)


@pytest.fixture
def matchers(words: Words) -> Iterator[Matchers]:
    matchers = Matchers(lambda: words, VOCAB_SIZE + 5)
    yield matchers
    matchers.close()


@pytest.fixture
def follower(words: Words, matchers: Matchers) -> Follower:
    return Follower(words.tokenizer, matchers)


@pytest.fixture(scope="session")
def real_tokenizer(default_model_path: Path) -> Tokenizer:
    return load_tokenizer(open_checkpoint(default_model_path, "auto").tokenizer_source())
