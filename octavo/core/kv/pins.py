"""Pins: which blocks eviction comes to last, and until when. An order of eviction, not a claim on memory.

A caller may ask that a prefix stays cached for a while. Knows blocks and times, not requests or keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from octavo.base.errors import EngineError
from octavo.core.kv.pool import BlockPool

MAX_SHARE = 0.5
"""Of the pool: the rest serves prefixes that nobody pinned in the order of their use."""


class Pins:
    """Pinned blocks, longest not asked for first. Past the limit those give way to new ones."""

    def __init__(self, pool: BlockPool) -> None:
        self.limit = int(MAX_SHARE * (pool.num_blocks - 1))
        """Most blocks that are pinned at a time."""
        self._pool = pool
        self._until: dict[int, float] = {}
        self._next_end = math.inf
        """No pin ends before this."""

    def pin(self, blocks: Iterable[int], until: float) -> None:
        """Pin these blocks, or pin them longer. Of one call the first gives way first."""
        for block in blocks:
            # Taken out and put in again, so that it is the last one in the dictionary.
            self._until[block] = max(self._until.pop(block, until), until)
            self._pool.pin(block)
        self._next_end = min(self._next_end, until)
        while len(self._until) > self.limit:
            self._let_go(next(iter(self._until)))

    def expire(self, now: float) -> None:
        """Let go of those whose time is over."""
        if now < self._next_end:
            return
        for block in [block for block, until in self._until.items() if until <= now]:
            self._let_go(block)
        self._next_end = min(self._until.values(), default=math.inf)

    def forget(self, block: int) -> None:
        """The block keeps something else from now on. Unpinned ones are ignored."""
        self._until.pop(block, None)

    def blocks(self) -> set[int]:
        return set(self._until)

    def check(self) -> None:
        """Prove that the limits hold."""
        if len(self._until) > self.limit:
            raise EngineError(f"{len(self._until)} blocks are pinned; at most {self.limit} may be.")
        if any(until < self._next_end for until in self._until.values()):
            raise EngineError("A pin ends before it would be looked at.")

    def _let_go(self, block: int) -> None:
        del self._until[block]
        self._pool.unpin(block)
