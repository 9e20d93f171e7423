"""Softmax states (see paged_decode_states) of queries over latent rows, and how both kernels are cut.

M query rows, each a head of a token; L tokens of a tile; C width of the latent and R of the rotated part,
which follows it in a row, both padded to powers of two.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

from octavo.ops.triton.paged_decode_states import LOG2_E, empty_states

MOST_HEADS = 64
"""Heads that share a load of the latents: the sums of so many, [64, 512] float32, fill the registers."""
EXCHANGED_BYTES = 160
"""For each row, at most, what warps exchange."""


@dataclass(frozen=True, kw_only=True)
class LatentTile:
    """How a kernel runs. None of it changes the result by more than rounding."""

    rows: int
    """Queries of a program. A power of two."""
    keys: int
    """Tokens whose rows are loaded together. A power of two, at least 16."""
    num_warps: int
    num_stages: int

    def shared_bytes(self, row_bytes: int) -> int:
        """At most."""
        return (self.rows + self.num_stages * self.keys) * row_bytes + self.rows * EXCHANGED_BYTES


def fitting(tile: LatentTile, row_bytes: int, device: torch.device, *, fewest_rows: int) -> LatentTile:
    """The tile, or a smaller one where the device has less shared memory. fewest_rows: a power of two."""
    while tile.shared_bytes(row_bytes) > _shared_memory(device):
        if tile.num_stages > 2:
            tile = replace(tile, num_stages=tile.num_stages - 1)
        elif tile.keys > 32:
            tile = replace(tile, keys=tile.keys // 2)
        elif tile.rows > fewest_rows:
            tile = replace(tile, rows=tile.rows // 2)
        elif tile.keys > 16:
            tile = replace(tile, keys=tile.keys // 2)
        elif tile.num_stages > 1:
            tile = replace(tile, num_stages=1)
        else:
            return tile
    return tile


@cache
def _shared_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return 1 << 30
    # A program may have all but the 1 KB that the driver keeps.
    properties = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_multiprocessor - 1024)


def head_blocks(num_heads: int) -> int:
    """Into how many equal parts heads are cut so that none has more than MOST_HEADS."""
    return next(n for n in range(1, num_heads + 1) if num_heads % n == 0 and num_heads // n <= MOST_HEADS)


def row_bytes(latent: int, rotated: int, itemsize: int) -> int:
    """Of a row in shared memory."""
    return (padded(latent) + padded(rotated)) * itemsize


def padded(width: int) -> int:
    """A side of a matrix product is at least 16."""
    return max(16, int(triton.next_power_of_2(width)))


def latent_constants(
    q_THC: torch.Tensor, q_THR: torch.Tensor, pages_BNW: torch.Tensor, out_THC: torch.Tensor, scale: float
) -> dict[str, Any]:
    """The model's shape, the pages' layout and the layer's scale."""
    num_heads, latent = q_THC.shape[1:]
    rotated = q_THR.shape[2]
    assert pages_BNW.shape[2] == latent + rotated, "a row is a latent and a rotated part"
    assert pages_BNW.stride(2) == q_THR.stride(2) == 1, "rows and queries lie in one piece"
    assert q_THC.stride()[1:] == out_THC.stride()[1:] == (latent, 1), "heads adjoin"
    return {
        "G": num_heads // head_blocks(num_heads),
        "LATENT": latent,
        "ROTATED": rotated,
        "BLOCK_C": padded(latent),
        "BLOCK_R": padded(rotated),
        "BLOCK_SIZE": pages_BNW.shape[1],
        "BLOCK_STRIDE": pages_BNW.stride(0),
        "TOKEN_STRIDE": pages_BNW.stride(1),
        "ROTATED_HEAD_STRIDE": q_THR.stride(1),
        "SCALE": scale,
    }


@triton.jit
def load_queries(
    q,
    q_rotated,
    offset_M,
    rotated_offset_M,
    is_real_M,
    LATENT: tl.constexpr,
    ROTATED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """Both parts of M queries, zeros where there is none."""
    c_C, r_R = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_R)
    q_MC = tl.load(
        q + offset_M[:, None] + c_C[None, :], mask=is_real_M[:, None] & (c_C < LATENT)[None, :], other=0.0
    )
    q_MR = tl.load(
        q_rotated + rotated_offset_M[:, None] + r_R[None, :],
        mask=is_real_M[:, None] & (r_R < ROTATED)[None, :],
        other=0.0,
    )
    return q_MC, q_MR


@triton.jit
def attend_latents(  # noqa: PLR0913
    q_MC,
    q_MR,
    pages,
    table,
    position_M,
    start,
    end,
    TILE: tl.constexpr,
    LATENT: tl.constexpr,
    ROTATED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_STRIDE: tl.constexpr,
    TOKEN_STRIDE: tl.constexpr,
    SCALE: tl.constexpr,
):
    """The states of M queries over tokens start..end (possibly none) of the sequence with this block table.

    A query at position p sees tokens up to p. Values are the latents that were loaded as keys. What lies past
    `end` may be NaN and 0 * NaN is NaN, so it is not loaded.
    """
    M: tl.constexpr = q_MC.shape[0]
    BLOCK_C: tl.constexpr = q_MC.shape[1]
    BLOCK_R: tl.constexpr = q_MR.shape[1]
    c_C, r_R = tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_R)
    m_M, l_M, acc_MC = empty_states(M, BLOCK_C)
    token_L = start + tl.arange(0, TILE)
    # A tile's block ids are read one tile ahead (see paged_decode_states.attend).
    block_L = tl.load(table + token_L // BLOCK_SIZE, mask=token_L < end, other=0)
    for tile in tl.range(start, end, TILE):
        token_L = tile + tl.arange(0, TILE)
        is_seen_L = token_L < end
        row_L = block_L.to(tl.int64) * BLOCK_STRIDE + (token_L % BLOCK_SIZE) * TOKEN_STRIDE
        latent_mask, rotated_mask = is_seen_L[:, None], is_seen_L[:, None]
        if BLOCK_C != LATENT:
            latent_mask &= (c_C < LATENT)[None, :]
        if BLOCK_R != ROTATED:
            rotated_mask &= (r_R < ROTATED)[None, :]
        k_LC = tl.load(pages + row_L[:, None] + c_C[None, :], mask=latent_mask, other=0.0)
        k_LR = tl.load(pages + LATENT + row_L[:, None] + r_R[None, :], mask=rotated_mask, other=0.0)
        next_L = token_L + TILE
        block_L = tl.load(table + next_L // BLOCK_SIZE, mask=next_L < end, other=0)
        s_ML = tl.dot(q_MR, tl.trans(k_LR), input_precision="ieee")
        s_ML = tl.dot(q_MC, tl.trans(k_LC), s_ML, input_precision="ieee") * (SCALE * LOG2_E)
        # Always: a branch around it keeps the products of two tiles from overlapping.
        s_ML = tl.where(token_L[None, :] > position_M[:, None], float("-inf"), s_ML)
        new_m_M = tl.maximum(m_M, tl.max(s_ML, 1))
        decay_M = tl.exp2(m_M - new_m_M)
        p_ML = tl.exp2(s_ML - new_m_M[:, None])
        l_M = l_M * decay_M + tl.sum(p_ML, 1)
        acc_MC = tl.dot(p_ML.to(k_LC.dtype), k_LC, acc_MC * decay_M[:, None], input_precision="ieee")
        m_M = new_m_M
    return m_M, l_M, acc_MC
