"""DRY's sequence breakers as token ids: which tokens hold a breaker, and which begin one.

A breaker is rarely a token of its own: ":" may only ever come as the end of "foo:". So the vocabulary is
searched, in whole arrays: a few milliseconds a breaker, kept for the next request.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from octavo.base.errors import RequestError
from octavo.grammar.cache import ByteCache
from octavo.messages.samplers import DryBreakers
from octavo.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from octavo.engine.spelled_vocabulary import SpelledVocabulary

CACHE_BYTES = 32 * 2**20
BYTES_PER_HEAD = 48
"""Two entries of lists and an int."""
MOST_TAILS = 32
LONGEST_TAIL = 20
"""Tokens, as in llama.cpp."""


class BreakerFinder:
    """Finds breakers in one vocabulary, whose table is made when it is first needed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: SpelledVocabulary | None = None
        self._found: ByteCache[tuple[str, ...], DryBreakers] = ByteCache(CACHE_BYTES)
        self._lock = threading.Lock()

    def find(self, breakers: Sequence[str]) -> DryBreakers:
        """For any thread. Raises RequestError if the breakers split into too many kinds of tails."""
        key = tuple(dict.fromkeys(breakers))
        with self._lock:
            found = self._found.get(key)
        if found is None:
            found = self._search(key)  # Without the lock: who knows its breakers already does not wait.
        with self._lock:
            self._found.put(key, found, BYTES_PER_HEAD * (1 + len(found.head_ids)))
        return found

    def _search(self, breakers: tuple[str, ...]) -> DryBreakers:
        if self._vocabulary is None:
            # Not at the start: it takes NumPy, 15 MB that few servers ever need.
            from octavo.engine.spelled_vocabulary import SpelledVocabulary

            self._vocabulary = SpelledVocabulary(self._tokenizer)
        tails: list[list[int]] = [[]]
        bits: dict[int, int] = {}
        for breaker in breakers:
            needle = breaker.encode("utf-8", "replace")
            whole = self._vocabulary.holders(needle)
            for token_id in whole:
                bits[token_id] = bits.get(token_id, 0) | 1
            for length in range(1, len(needle)):
                beginners = self._vocabulary.ending_with(needle[:length]) - whole
                tail = self._tail(needle[length:]) if beginners else []
                if not tail:
                    continue
                if tail not in tails:
                    tails.append(tail)
                    _check_count(tails)
                bit = 1 << tails.index(tail)
                for token_id in beginners:
                    bits[token_id] = bits.get(token_id, 0) | bit
        return DryBreakers(list(bits), list(bits.values()), tails)

    def _tail(self, rest: bytes) -> list[int]:
        """Tokens of the rest of a breaker; none where it begins inside a character."""
        try:
            text = rest.decode()
        except UnicodeDecodeError:
            return []
        return self._tokenizer.encode(text, add_special_tokens=False)[:LONGEST_TAIL]


def _check_count(tails: list[list[int]]) -> None:
    """At once, not when all are found: a search holds up everybody."""
    if len(tails) > MOST_TAILS:
        raise RequestError(
            f"dry_sequence_breakers fall into more than {MOST_TAILS} pieces with this vocabulary. Give fewer "
            "or shorter ones.",
            param="dry_sequence_breakers",
        )
