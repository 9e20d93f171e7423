"""BlockPool: all blocks of the cache, who counts on them, and the order in which free ones are taken again.

Knows nothing of requests, tokens or keys. Runs per step: every operation on a block is O(1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from itertools import compress

from octavo.base.errors import EngineError

NULL_BLOCK = 0
"""Stands in block tables where nothing is kept any more. Never handed out, never counted."""

WORTHLESS, REUSABLE, PINNED = range(3)
"""What a block's content is worth once nobody holds it; less is taken first."""


class BlockPool:
    """Reference counts and a doubly linked free list in eviction order.

    The links live in two lists of block ids, and the null block is both ends of the chain. A free
    block that still keeps a reusable prefix goes to the back; a worthless one goes to the front. Behind
    them all, after a wall that is no block, stand the pinned ones: taken when nothing else is left.
    """

    def __init__(self, num_blocks: int, forget: Callable[[int], object]) -> None:
        """`forget(block)` is called when a block that keeps a prefix is taken for something else."""
        assert num_blocks >= 2, "a pool needs the null block and one more"
        self.num_blocks = num_blocks
        self.num_free = num_blocks - 1
        self._forget = forget
        self._ref_counts = [0] * num_blocks
        self._worth = [WORTHLESS] * num_blocks
        self._wall = num_blocks
        self._next = [*range(1, num_blocks + 1), NULL_BLOCK]
        self._previous = [self._wall, *range(num_blocks)]

    def allocate(self, count: int) -> list[int]:
        """Take the `count` least valuable free blocks. The caller has checked `num_free`."""
        assert count <= self.num_free, "allocate() needs a check of num_free first"
        blocks = []
        for _ in range(count):
            block = self._next[NULL_BLOCK]
            if block == self._wall:
                block = self._next[block]
            self._unlink(block)
            if self._worth[block]:
                self._worth[block] = WORTHLESS
                self._forget(block)
            self._ref_counts[block] = 1
            blocks.append(block)
        self.num_free -= count
        return blocks

    def share(self, blocks: Iterable[int]) -> None:
        """Count one more holder of each block; free ones leave the free list with their content."""
        for block in blocks:
            if block == NULL_BLOCK:
                continue
            if self._ref_counts[block] == 0:
                self._unlink(block)
                self.num_free -= 1
            self._ref_counts[block] += 1

    def release(self, block: int) -> None:
        """Count one holder less. Release a request's last block first: early ones are worth more."""
        if block == NULL_BLOCK:
            return
        count = self._ref_counts[block] - 1
        assert count >= 0, f"block {block} was released more often than taken"
        self._ref_counts[block] = count
        if count == 0:
            self.num_free += 1
            self._link(block)

    def mark(self, block: int, *, keeps_prefix: bool) -> None:
        """Say whether a block's content can be found again. Free worthless blocks are taken first."""
        if (self._worth[block] != WORTHLESS) != keeps_prefix:
            self._set_worth(block, REUSABLE if keeps_prefix else WORTHLESS)

    def pin(self, block: int) -> None:
        """Take this block last of all. It keeps a prefix."""
        assert self._worth[block] != WORTHLESS, f"block {block} keeps nothing that is worth a pin"
        self._set_worth(block, PINNED)

    def unpin(self, block: int) -> None:
        """Take this block again in its turn, if it was pinned."""
        if self._worth[block] == PINNED:
            self._set_worth(block, REUSABLE)

    def count_free(self, blocks: Iterable[int]) -> int:
        """How many of these would leave the free list if shared now."""
        counts = self._ref_counts
        return sum(1 for block in blocks if block != NULL_BLOCK and counts[block] == 0)

    def free_order(self) -> list[int]:
        """The free blocks, next to be taken first."""
        order: list[int] = []
        block = self._next[NULL_BLOCK]
        following = self._next
        while block != NULL_BLOCK and len(order) <= self.num_blocks:
            order.append(block)
            block = following[block]
        order.remove(self._wall)
        return order

    def check(self, held: Sequence[int]) -> None:
        """Prove the books: held[b] is how many block tables name block b."""
        if list(held) != self._ref_counts:
            wrong = [b for b in range(self.num_blocks) if held[b] != self._ref_counts[b]][:8]
            raise EngineError(f"Blocks {wrong} are counted differently from the tables that name them.")
        free = self.free_order()
        unheld = set(range(1, self.num_blocks)).difference(compress(range(self.num_blocks), held))
        if len(free) != self.num_free or set(free) != unheld:
            raise EngineError(f"The free list has {len(free)} blocks; {self.num_free} are free.")
        worths = [self._worth[block] for block in free]
        if worths != sorted(worths):
            raise EngineError("The free list is not in the order of worth.")

    def check_marks(self, published: Set[int], pinned: Set[int]) -> None:
        """Prove that exactly the published blocks are marked as keeping a prefix, and which are pinned."""
        marked = set(compress(range(self.num_blocks), self._worth))
        if marked != published:
            raise EngineError(
                f"Blocks {sorted(marked ^ published)[:8]} are marked wrongly as keeping a prefix."
            )
        kept = {block for block in marked if self._worth[block] == PINNED}
        if kept != pinned:
            raise EngineError(f"Blocks {sorted(kept ^ pinned)[:8]} are marked wrongly as pinned.")

    def _set_worth(self, block: int, worth: int) -> None:
        self._worth[block] = worth
        if self._ref_counts[block] == 0:
            self._unlink(block)
            self._link(block)

    def _unlink(self, block: int) -> None:
        before, after = self._previous[block], self._next[block]
        self._next[before] = after
        self._previous[after] = before

    def _link(self, block: int) -> None:
        """To the front of the worthless or to the back of its class."""
        worth = self._worth[block]
        if worth == WORTHLESS:
            before = NULL_BLOCK
        else:
            before = self._previous[self._wall if worth == REUSABLE else NULL_BLOCK]
        after = self._next[before]
        self._next[before] = self._previous[after] = block
        self._previous[block], self._next[block] = before, after
