"""What differs between kinds of KV groups: which blocks of a table are still needed, what makes a hit.

One class for each kind, chosen once from the plan. Knows tables and keys, not requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from octavo.core.kv.pool import NULL_BLOCK
from octavo.messages.kv import KVGroup, KVKind


class FullGroup:
    """Every token sees all tokens before it: all blocks are needed to the end."""

    def first_needed(self, num_computed: int) -> int:  # noqa: ARG002
        """Index of the first block that the token after `num_computed` ones may still read."""
        return 0

    def longest_hit(self, keys: Sequence[bytes], cached: Mapping[bytes, int], limit: int) -> int:
        """The most blocks, up to `limit`, from which this group could go on without computing."""
        for index in range(limit):
            if keys[index] not in cached:
                return index
        return limit


class WindowGroup:
    """A token sees the last `window` tokens, itself included: older blocks can be given back."""

    def __init__(self, window: int, block_size: int) -> None:
        self._window = window
        self._block_size = block_size

    def first_needed(self, num_computed: int) -> int:
        return max(0, num_computed - self._window + 1) // self._block_size

    def longest_hit(self, keys: Sequence[bytes], cached: Mapping[bytes, int], limit: int) -> int:
        end = limit
        for index in range(limit - 1, -1, -1):
            if index < self.first_needed(end * self._block_size):
                return end
            if keys[index] not in cached:
                end = index
        return end


def make_group(group: KVGroup, block_size: int) -> FullGroup | WindowGroup:
    spec = group.spec
    if spec.kind is KVKind.SLIDING_WINDOW:
        assert spec.window is not None and spec.window > 0, "a sliding window needs a positive window"
        return WindowGroup(spec.window, block_size)
    return FullGroup()


def hit_table(
    group: FullGroup | WindowGroup,
    keys: Sequence[bytes],
    cached: Mapping[bytes, int],
    length: int,
    block_size: int,
) -> list[int]:
    """The block table that a hit of `length` blocks begins with."""
    first = group.first_needed(length * block_size)
    return [NULL_BLOCK] * first + [cached[keys[index]] for index in range(first, length)]
