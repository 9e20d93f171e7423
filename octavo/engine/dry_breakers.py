"""DRY's sequence breakers as token ids: which tokens hold a breaker, and which begin one.

A breaker is rarely a token of its own: ":" may only ever come as the end of "foo:". So the vocabulary is
searched, in whole arrays: a few milliseconds a breaker, kept for the next request.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from octavo.base.errors import RequestError
from octavo.grammar.cache import ByteCache
from octavo.messages.samplers import DryBreakers
from octavo.tokens.tokenizer import Tokenizer

CACHE_BYTES = 32 * 2**20
BYTES_PER_HEAD = 48
"""Two entries of lists and an int."""
MOST_TAILS = 32
LONGEST_TAIL = 20
"""Tokens, as in llama.cpp."""

IntArray = npt.NDArray[np.int64]


class BreakerFinder:
    """Finds breakers in one vocabulary, whose table is made when it is first needed."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: _Vocabulary | None = None
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
            self._vocabulary = _Vocabulary(self._tokenizer)
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


class _Vocabulary:
    """The bytes of all tokens, one after the other."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spelled = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]
        self._joined = b"".join(spelled)
        self._bytes = np.frombuffer(self._joined, dtype=np.uint8)
        self._lengths = np.array([len(token) for token in spelled], dtype=np.int64)
        self._ends: IntArray = np.cumsum(self._lengths)
        by_last_byte: list[list[int]] = [[] for _ in range(256)]
        for token_id, token in enumerate(spelled):
            if token:
                by_last_byte[token[-1]].append(token_id)
        self._by_last_byte = [np.array(tokens, dtype=np.int64) for tokens in by_last_byte]

    def holders(self, needle: bytes) -> set[int]:
        """Tokens with these bytes anywhere inside."""
        places = self._places(needle)
        tokens = np.searchsorted(self._ends, places, side="right")
        return set(tokens[places + len(needle) <= self._ends[tokens]].tolist())

    def _places(self, needle: bytes) -> IntArray:
        if len(needle) == 1:
            return np.flatnonzero(self._bytes == needle[0])
        places, place = [], self._joined.find(needle)
        while place >= 0:
            places.append(place)
            place = self._joined.find(needle, place + 1)
        return np.array(places, dtype=np.int64)

    def ending_with(self, tail: bytes) -> set[int]:
        """Tokens with these bytes at the end."""
        tokens = self._by_last_byte[tail[-1]]
        tokens = tokens[self._lengths[tokens] >= len(tail)]
        for back, byte in enumerate(reversed(tail), start=1):
            if not len(tokens):
                break
            tokens = tokens[self._bytes[self._ends[tokens] - back] == byte]
        return set(tokens.tolist())
