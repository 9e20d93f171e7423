"""Tells when an answer goes round in circles: its end is the same pattern of tokens, several times over.

Token t repeats at distance d when it equals the one d places before. A pattern of size d stands there
`count` times exactly when the last d * (count - 1) tokens all repeat at distance d. So one number per
size is kept, and a token costs one pass over them.
"""

from __future__ import annotations

import numpy as np

from octavo.messages.samplers import RepetitionDetectionParams


class Repetition:
    """The tokens of one answer, as far as patterns reach."""

    def __init__(self, params: RepetitionDetectionParams) -> None:
        smallest, largest = max(1, params.min_pattern_size), params.max_pattern_size
        self._smallest, self._largest = smallest, largest
        sizes = np.arange(smallest, largest + 1)
        self._needed = sizes * (params.min_count - 1)
        self._lasts = np.zeros(len(sizes), dtype=np.int64)
        """How many last tokens repeat, by distance."""
        self._ring = np.full(2 * largest, -1, dtype=np.int64)
        """The last tokens, each twice, so that any stretch of them lies side by side."""
        self._place = 0

    def add(self, token_id: int) -> bool:
        """Take the next token. True when a pattern is complete."""
        largest, end = self._largest, self._place + self._largest
        # From the token `smallest` places back to that `largest` places back.
        earlier = self._ring[end - largest : end - self._smallest + 1][::-1]
        self._lasts += 1
        self._lasts *= earlier == token_id
        self._ring[self._place] = self._ring[self._place + largest] = token_id
        self._place = (self._place + 1) % largest
        return bool((self._lasts >= self._needed).any())
