"""How decode attention is shared out over programs, and the memory in which the shares meet.

K KV heads, G query heads per KV head, D head width. A slot holds the states of one KV head's G queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.base.errors import EngineError
from octavo.base.integers import ceil_div
from octavo.ops.triton.tuning import multiprocessors

PROGRAMS_PER_SM = 2
"""Programs per processor from which on splitting costs more than it brings (H100, 32 sequences of 4096
tokens: 186 us whole, 190 to 211 in 2 to 4 splits; 64 of 512: 51 and 60 us)."""
MOST_SPLITS = 64
MOST_SHARED_SPLITS = 4
"""Low, because every sequence folds all splits of the shared part."""
SHARED_ROWS = 64
"""Queries of a tile of the shared part: the fewest that make full use of Hopper's matrix units."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a kernel runs. None of it changes the result by more than rounding."""

    tile: int
    """Tokens whose keys and values are loaded together. A power of two, at least 16."""
    num_warps: int
    num_stages: int
    """One less than the tiles of keys and values that have room in shared memory."""


def decode_tuning(head_bytes: int) -> Tuning:
    """Four programs of 54 KB on an H100's processor. head_bytes: of one token's key (a power of two).

    Two warps: within 1 % of the best of 7 shapes at 256 x 384, ahead of four by 3 to 25 % at few sequences.
    """
    tile = max(16, 8192 // head_bytes)
    return Tuning(tile=tile, num_warps=2, num_stages=4 if tile * head_bytes <= 8192 else 3)


def shared_tuning(head_bytes: int) -> Tuning:
    """Tiles of 16 KB; half of that for wide heads, whose queries need the room on GPUs with 99 KB."""
    tile_bytes = 16384 if head_bytes <= 256 else 8192
    return Tuning(tile=max(16, tile_bytes // head_bytes), num_warps=4, num_stages=3)


def decode_splits(num_seqs: int, num_kv_heads: int, num_sms: int) -> int:
    """Into how many parts the longest sequences are cut, so that few sequences fill the processors too."""
    programs = num_seqs * num_kv_heads
    return min(max(PROGRAMS_PER_SM * num_sms // programs, 1), MOST_SPLITS)


def shared_splits(num_seqs: int, num_kv_heads: int, seqs_per_tile: int, num_sms: int) -> int:
    programs = ceil_div(num_seqs, seqs_per_tile) * num_kv_heads
    return min(max(4 * num_sms // programs, 1), MOST_SHARED_SPLITS)


def rows_per_seq(num_heads: int, num_kv_heads: int) -> int:
    """Query rows that a sequence takes in a tile of the shared part: G, rounded up to a power of two."""
    return 1 << (num_heads // num_kv_heads - 1).bit_length()


@dataclass(frozen=True, kw_only=True)
class DecodeWorkspace:
    """Allocated once, used by every layer in turn. Only the counters carry anything over: zeros."""

    accs: torch.Tensor
    """[slots, G, D] float32"""
    stats: torch.Tensor
    """[slots, G, 2] float32: highest score and sum of weights"""
    counters: torch.Tensor
    """[sequences * K] int32: splits that are done; zero between launches"""
    num_sms: int

    @classmethod
    def allocate(
        cls,
        *,
        max_seqs: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        device: torch.device,
        num_sms: int | None = None,
        num_splits: int | None = None,
        with_shared: bool = False,
        least_slots: int = 0,
    ) -> DecodeWorkspace:
        """For any batch up to max_seqs. num_splits: as calls will give it; num_sms: None asks the device.

        least_slots: where calls may give more splits than `decode_splits`, sequences x KV heads x splits.
        """
        num_sms = num_sms or multiprocessors(device)
        seqs_per_tile = max(1, SHARED_ROWS // rows_per_seq(num_heads, num_kv_heads))
        num_slots = least_slots
        for num_seqs in range(1, max_seqs + 1):
            own = num_splits or decode_splits(num_seqs, num_kv_heads, num_sms)
            shared = shared_splits(num_seqs, num_kv_heads, seqs_per_tile, num_sms) if with_shared else 0
            if own + shared > 1:
                num_slots = max(num_slots, num_seqs * num_kv_heads * (own + shared))
        group = num_heads // num_kv_heads
        return cls(
            accs=torch.empty(num_slots, group, head_dim, dtype=torch.float32, device=device),
            stats=torch.empty(num_slots, group, 2, dtype=torch.float32, device=device),
            counters=torch.zeros(max_seqs * num_kv_heads, dtype=torch.int32, device=device),
            num_sms=num_sms,
        )

    def check(self, num_pairs: int, slots_per_pair: int) -> None:
        """num_pairs: sequences times KV heads."""
        num_slots = num_pairs * slots_per_pair if slots_per_pair > 1 else 0
        if num_pairs > len(self.counters) or num_slots > len(self.accs):
            raise EngineError(
                f"Decode attention needs {num_pairs} counters and {num_slots} slots; its workspace "
                f"has {len(self.counters)} and {len(self.accs)}. Allocate it for the largest batch."
            )
