"""Holding: the blocks one request holds and the keys of what is in them. Data, moved by the manager."""

from __future__ import annotations

import sys

NEVER = sys.maxsize


class Holding:
    """One per request, kept through preemption: tables come and go, keys stay.

    All tables of a request have the same length. The scheduler reads `capacity` and `publish_at` for
    every request in every step, so that most steps need no call into the manager.
    """

    __slots__ = (
        "block_seconds",
        "capacity",
        "counted_at",
        "first_own",
        "keys",
        "num_held",
        "num_published",
        "owner",
        "publish_at",
        "root",
        "tables",
    )

    def __init__(self, owner: str, root: bytes) -> None:
        self.owner = owner
        self.root = root
        self.keys: list[bytes] = []
        """Keys of the full blocks of known tokens; each is computed once."""
        self.tables: list[list[int]] = []
        """Block table of each group; empty while the request waits."""
        self.capacity = 0
        """Tokens that the tables have room for."""
        self.first_own = 0
        """Index of the first block that this request computes itself; those before were a hit."""
        self.num_published = 0
        """Blocks from the start that need no publishing any more."""
        self.publish_at = NEVER
        """Number of computed tokens at which the next block is ready to be published."""
        self.block_seconds = 0.0
        """Blocks that it held, times how long, up to `counted_at`."""
        self.num_held = 0
        """Blocks since then, shared ones too."""
        self.counted_at = 0.0
