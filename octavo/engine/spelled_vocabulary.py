"""SpelledVocabulary: which tokens hold some bytes, or end with them, found in whole arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from octavo.tokens.tokenizer import Tokenizer

IntArray = npt.NDArray[np.int64]


class SpelledVocabulary:
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
