"""Follows grammars with tokens chosen at random among those that the masks allow."""

from __future__ import annotations

import random

import numpy as np

from octavo.grammar.matchers import Matchers
from octavo.messages.structured import StructuredOutputsParams
from octavo.tokens.tokenizer import Tokenizer

CLOSERS = ('"', "}", "]", '"}', '"]', "}}", "]]", "]}", "}]", '"}}', ",")


class Follower:
    """One vocabulary; `answer` is what a model of no sense would say."""

    def __init__(self, tokenizer: Tokenizer, matchers: Matchers) -> None:
        self._tokenizer = tokenizer
        self._matchers = matchers
        self._eos = set(tokenizer.eos_token_ids)
        ids = {tokenizer.token_text(token): token for token in range(tokenizer.vocab_size)}
        self._closers = [ids[text] for text in CLOSERS if text in ids]

    def answer(self, canonical: str, seed: int, max_tokens: int = 800) -> str | None:
        """A whole answer; None where it did not come to its end in time."""
        grammar = self._matchers.open(StructuredOutputsParams(canonical=canonical), [])
        chance = random.Random(seed)
        said: list[int] = []
        for number in range(max_tokens):
            mask_MW = np.zeros((1, -(-self._matchers._width // 32)), dtype=np.int32)
            is_filled = grammar.fill(mask_MW, 0)
            if grammar.failure is not None and "too complex" in grammar.failure:
                return None
            assert is_filled, grammar.failure
            token = self._choose(mask_MW.tobytes(), chance, hurries=number > max_tokens // 4)
            if token in self._eos:
                return self._tokenizer.decode(said)
            said.append(token)
            grammar.take(token)
            if grammar.failure is not None and "too complex" in grammar.failure:
                return None
            assert grammar.failure is None, grammar.failure
        return None

    def _choose(self, mask: bytes, chance: random.Random, *, hurries: bool) -> int:
        def is_allowed(token: int) -> bool:
            return bool(mask[token // 8] >> token % 8 & 1)

        ends = [token for token in self._eos if is_allowed(token)]
        if ends and (hurries or chance.random() < 0.3):
            return ends[0]
        closers = [token for token in self._closers if is_allowed(token)]
        if closers and (hurries or chance.random() < 0.2):
            return chance.choice(closers)
        start = chance.randrange(len(mask))
        for index in (*range(start, len(mask)), *range(start)):
            if mask[index]:
                bits = [bit for bit in range(8) if mask[index] >> bit & 1]
                return index * 8 + chance.choice(bits)
        raise AssertionError("the mask allows nothing")
