"""Prefix keys and the index that finds blocks by them.

A key is a sha256 over the key of the block before, this block's tokens and, at the start, the tenant's
salt. Equal keys therefore mean equal tokens from the first on: a reused block is the block that would
have been computed. Knows nothing of requests or of the order of eviction.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256

from octavo.base.errors import EngineError

TOKEN_TYPE = "I"
"""Fixed width: otherwise tokens (1, 23) and (12, 3) could read the same."""


def root_key(salt: str | None, stands_for: bytes | None = None) -> bytes:
    """What the first block's key is chained to. No salt and an empty salt differ.

    stands_for: digest of what the prompt's tokens, being placeholders, stand for. Only prompts that stand
    for the same share blocks, and none with a prompt of real tokens.
    """
    if stands_for is not None:
        return sha256(b"placeholders:" + root_key(salt) + stands_for).digest()
    if salt is None:
        return sha256(b"unsalted").digest()
    # A caller may send half of a surrogate pair: any string has to work here.
    return sha256(b"salt:" + salt.encode("utf-8", "surrogatepass")).digest()


def extend_keys(
    keys: list[bytes], root: bytes, token_ids: Sequence[int], block_size: int, count: int
) -> None:
    """Append keys until the first `count` full blocks of `token_ids` have one."""
    parent = keys[-1] if keys else root
    for index in range(len(keys), count):
        tokens = array(TOKEN_TYPE, token_ids[index * block_size : (index + 1) * block_size])
        parent = sha256(parent + tokens.tobytes()).digest()
        keys.append(parent)


class PrefixIndex:
    """Which block of which group keeps the content of which key. The first to publish a key keeps it."""

    def __init__(self, num_groups: int) -> None:
        self._blocks: list[dict[bytes, int]] = [{} for _ in range(num_groups)]
        self._published: dict[int, tuple[int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._published)

    def group(self, group: int) -> dict[bytes, int]:
        """Key -> block of one group; read only."""
        return self._blocks[group]

    def publish(self, group: int, key: bytes, block: int) -> bool:
        """Make a block findable. False: another block keeps that content already."""
        blocks = self._blocks[group]
        if key in blocks:
            return False
        assert block not in self._published, f"block {block} would keep two contents"
        blocks[key] = block
        self._published[block] = (group, key)
        return True

    def withdraw(self, block: int) -> bool:
        """Make a block impossible to find. False: it was not listed."""
        entry = self._published.pop(block, None)
        if entry is None:
            return False
        group, key = entry
        del self._blocks[group][key]
        return True

    def published_blocks(self) -> set[int]:
        return set(self._published)

    def check(self) -> None:
        """Prove that both directions agree."""
        listed = {
            block: (group, key) for group, blocks in enumerate(self._blocks) for key, block in blocks.items()
        }
        if listed != self._published:
            raise EngineError("The prefix index disagrees with itself about which block keeps what.")
