"""Vocabulary: what a grammar has to know of a tokenizer, as plain data that can go to a helper process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from octavo.base.errors import RequestError

if TYPE_CHECKING:
    from llguidance import LLTokenizer, TokenizerWrapper

    from octavo.tokens.tokenizer import Tokenizer

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, kw_only=True)
class Words:
    """A tokenizer and the tokens that end a text."""

    tokenizer: Tokenizer
    eos_token_ids: Sequence[int]


def no_words() -> Words:
    """Where there is no tokenizer."""
    raise RequestError("This worker has no tokenizer.", param="structured_outputs")


class Vocabulary(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of every token, by id."""

    tokens: list[bytes]
    """One for each of the model's logits; empty where an id stands for nothing."""
    special: dict[str, int]
    """Tokens that no text can spell, by their names."""
    eos_token_ids: list[int]


def vocabulary_of(words: Words, width: int) -> Vocabulary:
    """Raises RequestError for a tokenizer whose tokens are not plain bytes. width: of the logits.

    Takes tenths of a second for a large vocabulary.
    """
    tokenizer = words.tokenizer
    if not tokenizer.has_token_bytes or not words.eos_token_ids:
        reason = "no end-of-text token" if tokenizer.has_token_bytes else "no tokenizer whose tokens are text"
        raise RequestError(
            f"structured_outputs cannot be kept: this engine has {reason}.", param="structured_outputs"
        )
    return Vocabulary(
        tokens=[tokenizer.token_bytes(token_id) for token_id in range(width)],
        special={
            tokenizer.token_text(token_id): token_id
            for token_id in range(min(width, tokenizer.vocab_size))
            if tokenizer.is_special(token_id)
        },
        eos_token_ids=list(words.eos_token_ids),
    )


def ll_tokenizer(vocabulary: Vocabulary, encode: Encode | None = None) -> LLTokenizer:
    """llguidance's view of the vocabulary. Takes tenths of a second for a large one.

    `encode` says how the model spells a text that the grammar forces; without it the longest tokens do.
    """
    from llguidance import LLTokenizer

    tokenizer = _Wrapper(vocabulary, encode or _longest_first(vocabulary.tokens))
    return LLTokenizer(cast("TokenizerWrapper", tokenizer), eos_token=vocabulary.eos_token_ids)


def _longest_first(tokens: Sequence[bytes]) -> Encode:
    ids = {token: token_id for token_id, token in enumerate(tokens) if token}
    longest = max(map(len, ids), default=0)

    def encode(text: str) -> list[int]:
        data, found, start = text.encode("utf-8", "replace"), [], 0
        while start < len(data):
            end = min(start + longest, len(data))
            while end > start + 1 and data[start:end] not in ids:
                end -= 1
            found.append(ids.get(data[start:end], 0))
            start = end
        return found

    return encode


class _Wrapper:
    """The shape that llguidance reads a tokenizer from."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, encode: Encode) -> None:
        self.eos_token_id = vocabulary.eos_token_ids[0]
        self.tokens = vocabulary.tokens
        self.special_token_ids = sorted(vocabulary.special.values())
        self._encode = encode

    def __call__(self, text: str) -> Any:
        return self._encode(text)
