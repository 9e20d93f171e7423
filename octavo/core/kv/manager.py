"""KVCacheManager: gives blocks to requests, finds cached prefixes, takes blocks back.

Sees holdings, token ids and counts; never a request, a priority or a limit. Runs per step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import EngineError
from octavo.base.integers import ceil_div
from octavo.core.kv.block import NEVER, Holding
from octavo.core.kv.group import hit_table, make_group
from octavo.core.kv.pins import Pins
from octavo.core.kv.pool import NULL_BLOCK, BlockPool
from octavo.core.kv.prefix import PrefixIndex, extend_keys, root_key
from octavo.messages.kv import KVPlan

Journal = list[tuple[Holding, int]]
"""Who published which block."""


class Hit(NamedTuple):
    """Cached blocks that a request could begin with."""

    num_tokens: int
    tables: list[list[int]]


class KVCacheManager:
    """Moves blocks between the pool and holdings; all or nothing, never partly."""

    def __init__(self, plan: KVPlan, *, enable_prefix_caching: bool, clock: Clock = monotonic) -> None:
        self._clock = clock
        self.block_size = plan.block_size
        self.num_groups = len(plan.groups)
        self.journal: Journal = []
        """What was published since the caller last put a new list here."""
        self._groups = [make_group(group, plan.block_size) for group in plan.groups]
        self._has_window = any(group.spec.window is not None for group in plan.groups)
        self._is_caching = enable_prefix_caching and bool(plan.groups)
        self._index = PrefixIndex(self.num_groups)
        self._pool = BlockPool(plan.num_blocks, self._forget)
        self._pins = Pins(self._pool)
        self.no_blocks: list[list[int]] = [[] for _ in plan.groups]
        """What a step that needs no new block gets."""

    @property
    def num_blocks(self) -> int:
        """Blocks that can be handed out."""
        return self._pool.num_blocks - 1

    @property
    def num_free(self) -> int:
        return self._pool.num_free

    @property
    def num_cached(self) -> int:
        return len(self._index)

    def open(self, owner: str, salt: str | None, stands_for: bytes | None = None) -> Holding:
        """stands_for: what a prompt of placeholders is instead (see root_key)."""
        return Holding(owner, root_key(salt, stands_for))

    def find_prefix(self, holding: Holding, token_ids: Sequence[int], max_tokens: int) -> Hit:
        """The longest cached prefix of at most `max_tokens` tokens that all groups can go on from."""
        limit = max_tokens // self.block_size if self._is_caching else 0
        if limit <= 0:
            return Hit(0, [[] for _ in self._groups])
        extend_keys(holding.keys, holding.root, token_ids, self.block_size, limit)
        keys, length, before = holding.keys, limit, -1
        while length != before:
            before = length
            for number, group in enumerate(self._groups):
                length = group.longest_hit(keys, self._index.group(number), length)
        tables = [
            hit_table(group, keys, self._index.group(number), length, self.block_size)
            for number, group in enumerate(self._groups)
        ]
        return Hit(length * self.block_size, tables)

    def admit(self, holding: Holding, hit: Hit, num_tokens: int, reserve: int) -> bool:
        """Begin with a hit and room for `num_tokens`, leaving `reserve` blocks free; or do nothing."""
        assert not holding.tables, f"{holding.owner} holds blocks already"
        blocks_each = ceil_div(num_tokens - hit.num_tokens, self.block_size)
        taken = sum(self._pool.count_free(table) for table in hit.tables)
        if blocks_each * self.num_groups + taken + reserve > self._pool.num_free:
            return False
        # The hit first: allocating could otherwise take the very blocks that were found.
        for table in hit.tables:
            self._pool.share(table)
        holding.tables = [table + self._pool.allocate(blocks_each) for table in hit.tables]
        self._count(holding, sum(block != NULL_BLOCK for table in holding.tables for block in table))
        holding.capacity = hit.num_tokens + blocks_each * self.block_size
        holding.first_own = holding.num_published = hit.num_tokens // self.block_size
        holding.publish_at = hit.num_tokens + self.block_size if self._is_caching else NEVER
        return True

    def grow(self, holding: Holding, num_computed: int, num_tokens: int) -> list[list[int]] | None:
        """Make room for `num_tokens`; the new block ids of each group, or None if there are too few.

        `num_computed` tokens need no computing any more: what fell out of a window is given back first.
        """
        if num_tokens <= holding.capacity:
            return self.no_blocks
        if self._has_window:
            self._release_old(holding, num_computed)
        each = ceil_div(num_tokens - holding.capacity, self.block_size)
        if each * self.num_groups > self._pool.num_free:
            return None
        new_blocks = [self._pool.allocate(each) for _ in holding.tables]
        for table, blocks in zip(holding.tables, new_blocks, strict=True):
            table.extend(blocks)
        self._count(holding, each * self.num_groups)
        holding.capacity += each * self.block_size
        return new_blocks

    def publish(self, holding: Holding, token_ids: Sequence[int], num_computed: int) -> None:
        """Let others find the blocks whose tokens are all known and computed (or scheduled to be)."""
        full = min(num_computed, len(token_ids)) // self.block_size
        if holding.publish_at == NEVER or full <= holding.num_published:
            return
        keys = holding.keys
        extend_keys(keys, holding.root, token_ids, self.block_size, full)
        for number, table in enumerate(holding.tables):
            for index in range(holding.num_published, full):
                block = table[index]
                if block != NULL_BLOCK and self._index.publish(number, keys[index], block):
                    self._pool.mark(block, keeps_prefix=True)
                    self.journal.append((holding, block))
        holding.num_published = full
        holding.publish_at = (full + 1) * self.block_size

    def withdraw(self, blocks: Iterable[int]) -> None:
        """Let nobody find these blocks any more: what they keep may be wrong."""
        for block in blocks:
            if self._index.withdraw(block):
                self._pins.forget(block)
                self._pool.mark(block, keeps_prefix=False)

    def withdraw_own(self, holding: Holding) -> None:
        """The same for all that this holding computed itself."""
        for table in holding.tables:
            self.withdraw(table[holding.first_own :])

    def pin(self, holding: Holding, num_tokens: int, until: float) -> None:
        """Evict what is cached of the first `num_tokens` last of all until then; a share of the pool at most.

        Pinned blocks count as free like others that nobody holds: no request ever waits for a pin.
        """
        if not self._is_caching:
            return
        length = min(num_tokens // self.block_size, len(holding.keys), self._pins.limit // self.num_groups)
        keys = holding.keys
        groups = [
            (self._index.group(number), group.first_needed(length * self.block_size))
            for number, group in enumerate(self._groups)
        ]
        # Last blocks first, as in `free`: a prefix that has to give way loses its end.
        found = [
            cached[keys[index]]
            for index in range(length - 1, -1, -1)
            for cached, first in groups
            if index >= first and keys[index] in cached
        ]
        self._pins.pin(found, until)

    def expire_pins(self, now: float) -> None:
        """Let go of pins whose time is over. Cheap when there are none."""
        self._pins.expire(now)

    def free(self, holding: Holding) -> None:
        """Give everything back, last blocks first so that the start of a prefix lives longest. Idempotent."""
        for column in zip(*(reversed(table) for table in holding.tables), strict=True):
            for block in column:
                self._pool.release(block)
        self._count(holding, -holding.num_held)
        holding.tables = []
        holding.capacity = holding.first_own = holding.num_published = 0
        holding.publish_at = NEVER

    def reset(self, holdings: Iterable[Holding]) -> None:
        """Forget all cached content. `holdings`, all that hold blocks, publish nothing of it any more."""
        self.withdraw(self._index.published_blocks())
        for holding in holdings:
            holding.publish_at = NEVER

    def check(self, holdings: Iterable[Holding]) -> None:
        """Prove that the pool counts exactly the blocks in these tables, and that the index is sound."""
        held = [0] * self._pool.num_blocks
        charged: list[tuple[str, int, int]] = []
        for holding in holdings:
            lengths = {len(table) * self.block_size for table in holding.tables}
            if lengths - {holding.capacity}:
                raise EngineError(f"{holding.owner} has tables for {lengths} tokens, not {holding.capacity}.")
            blocks = [block for table in holding.tables for block in table if block != NULL_BLOCK]
            for block in blocks:
                held[block] += 1
            charged.append((holding.owner, holding.num_held, len(blocks)))
        self._pool.check(held)
        for owner, counted, count in charged:
            if counted != count:
                raise EngineError(f"{owner} holds {count} blocks and is charged for {counted}.")
        self._index.check()
        self._pool.check_marks(self._index.published_blocks(), self._pins.blocks())
        self._pins.check()

    def _count(self, holding: Holding, more: int) -> None:
        """It holds so many more blocks, or fewer, from now on."""
        now = self._clock()
        holding.block_seconds += holding.num_held * (now - holding.counted_at)
        holding.num_held += more
        holding.counted_at = now

    def _forget(self, block: int) -> None:
        """The pool takes a block that keeps a prefix."""
        self._index.withdraw(block)
        self._pins.forget(block)

    def _release_old(self, holding: Holding, num_computed: int) -> None:
        for group, table in zip(self._groups, holding.tables, strict=True):
            for index in range(min(group.first_needed(num_computed), len(table)) - 1, -1, -1):
                if table[index] == NULL_BLOCK:
                    break
                self._pool.release(table[index])
                self._count(holding, -1)
                table[index] = NULL_BLOCK
