"""Shares: how much of a shelf each owner takes, and who makes room where there is too much."""

from __future__ import annotations

from collections import Counter


class Shares:
    """Whoever holds the most makes room, with the oldest: nobody's responses push out those of others."""

    def __init__(self, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._counts: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._count = self._num_bytes = 0

    def add(self, owner: str, num_bytes: int, count: int = 1) -> None:
        """So much more is there of one owner; less where numbers are negative."""
        self._counts[owner] += count
        self._bytes[owner] += num_bytes
        self._count += count
        self._num_bytes += num_bytes
        if not self._counts[owner]:
            del self._counts[owner], self._bytes[owner]

    def who_makes_room(self) -> str | None:
        """None: there is no more than may be."""
        if self._count > self._max_count:
            return max(self._counts, key=self._counts.__getitem__)
        if self._num_bytes > self._max_bytes:
            return max(self._bytes, key=self._bytes.__getitem__)
        return None

    def clear(self) -> None:
        self._counts.clear()
        self._bytes.clear()
        self._count = self._num_bytes = 0
