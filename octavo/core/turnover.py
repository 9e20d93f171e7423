"""Turnover: how soon rows get free again, seen on every request that ends, with a queue or without."""

from __future__ import annotations

MEMORY = 50
"""So many of the last requests count for most."""


class Turnover:
    """Means over the last requests, each new one counting 1/MEMORY, or more while there are few."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._num_seen = 0
        self._held_s = 0.0
        self._tokens = 0.0

    def add(self, held_s: float, num_tokens: int) -> None:
        """A request with so long a prompt ended; from its first token on it held its row for so long."""
        self._num_seen += 1
        share = 1 / min(self._num_seen, MEMORY)
        self._held_s += share * (held_s - self._held_s)
        self._tokens += share * (num_tokens - self._tokens)

    @property
    def tokens_per_s(self) -> float | None:
        """Prompt tokens that begin to be answered per second when all rows are taken; None: unknown.

        Little's law. Requests are slower in more company than they were seen in: it is rather too much.
        """
        return self._num_rows * self._tokens / self._held_s if self._held_s > 0 else None
