"""Norm, rotation and page write of latent attention in one launch. Shape letters as in octavo/ops/latents.py.

One program per token for its row, and one per few heads for its queries: results depend on that token only.

Limits on an H100, bytes of 2-byte numbers per token: 2 H R for queries, read and written, and W read and
twice written: DeepSeek-V2-Lite (16, 64, 576) 7.6 KB, so 8192 tokens 62 MB in 21 us; one token is three trips
to memory, position to angles to result: about 3 us, 2 with dependent launch.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.triton.pdl import pdl_options

TILE_HEADS = 16
"""Heads of a program."""


def prepare_latents(
    q_THR: torch.Tensor,
    rows_TW: torch.Tensor,
    positions_T: torch.Tensor,
    slots_T: torch.Tensor,
    rotation_PR: torch.Tensor,
    norm_C: torch.Tensor,
    epsilon: float,
    pages_BNW: torch.Tensor,
) -> None:
    """Queries and rows change in place; rows go to their slots."""
    num_tokens, num_heads, rotated = q_THR.shape
    latent = len(norm_C)
    assert q_THR.stride(2) == rows_TW.stride(1) == pages_BNW.stride(2) == 1, "rows lie in one piece"
    assert rotated == rotation_PR.shape[1] == rows_TW.shape[1] - latent, "queries and rows rotate alike"
    _prepare_latents_kernel[(num_tokens, 1 + triton.cdiv(num_heads, TILE_HEADS))](
        q_THR,
        rows_TW,
        positions_T,
        slots_T,
        rotation_PR,
        norm_C,
        pages_BNW,
        epsilon,
        q_THR.stride(0),
        q_THR.stride(1),
        rows_TW.stride(0),
        pages_BNW.stride(0),
        pages_BNW.stride(1),
        NUM_HEADS=num_heads,
        LATENT=latent,
        HALF=rotated // 2,
        BLOCK_SIZE=pages_BNW.shape[1],
        PADDED_LATENT=triton.next_power_of_2(latent),
        PADDED_HALF=triton.next_power_of_2(rotated // 2),
        TILE_HEADS=TILE_HEADS,
        num_warps=2,
        **pdl_options(q_THR.device),
    )


@triton.jit
def _prepare_latents_kernel(  # noqa: PLR0913
    q_ptr,
    rows_ptr,
    positions_ptr,
    slots_ptr,
    rotation_ptr,
    norm_ptr,
    pages_ptr,
    epsilon,
    q_stride,
    q_head_stride,
    rows_stride,
    block_stride,
    slot_stride,
    NUM_HEADS: tl.constexpr,
    LATENT: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    PADDED_LATENT: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    TILE_HEADS: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    position = tl.load(positions_ptr + token).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    column_H = tl.arange(0, PADDED_HALF)
    is_half_H = column_H < HALF
    angles_ptr = rotation_ptr + position * (2 * HALF)
    cos_H = tl.load(angles_ptr + column_H, mask=is_half_H, other=0.0)
    sin_H = tl.load(angles_ptr + HALF + column_H, mask=is_half_H, other=0.0)
    if part > 0:
        head_T = (part - 1) * TILE_HEADS + tl.arange(0, TILE_HEADS)
        ptrs = q_ptr + token * q_stride + head_T[:, None] * q_head_stride + column_H[None, :]
        inside = (head_T < NUM_HEADS)[:, None] & is_half_H[None, :]
        first = tl.load(ptrs, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(ptrs + HALF, mask=inside, other=0.0).to(tl.float32)
        tl.store(ptrs, first * cos_H[None, :] - second * sin_H[None, :], mask=inside)
        tl.store(ptrs + HALF, second * cos_H[None, :] + first * sin_H[None, :], mask=inside)
    else:
        column_C = tl.arange(0, PADDED_LATENT)
        is_latent_C = column_C < LATENT
        row_ptr = rows_ptr + token * rows_stride
        x_C = tl.load(row_ptr + column_C, mask=is_latent_C, other=0.0)
        weight_C = tl.load(norm_ptr + column_C, mask=is_latent_C, other=0.0)
        rotated_ptrs = row_ptr + LATENT + column_H
        first_H = tl.load(rotated_ptrs, mask=is_half_H, other=0.0).to(tl.float32)
        second_H = tl.load(rotated_ptrs + HALF, mask=is_half_H, other=0.0).to(tl.float32)
        exact_C = x_C.to(tl.float32)
        scale = tl.rsqrt(tl.sum(exact_C * exact_C, 0) / LATENT + epsilon)
        # Rounded before the weight, as the plain norm does.
        latent_C = (exact_C * scale).to(weight_C.dtype).to(tl.float32) * weight_C.to(tl.float32)
        turned_H = first_H * cos_H - second_H * sin_H
        other_H = second_H * cos_H + first_H * sin_H
        # A page array may have more than 2^31 values. What has no slot is not kept.
        block = (slot // BLOCK_SIZE).to(tl.int64)
        page_ptr = pages_ptr + block * block_stride + (slot % BLOCK_SIZE) * slot_stride
        is_kept_half_H = column_H < tl.where(slot >= 0, HALF, 0)
        tl.store(row_ptr + column_C, latent_C, mask=is_latent_C)
        tl.store(rotated_ptrs, turned_H, mask=is_half_H)
        tl.store(rotated_ptrs + HALF, other_H, mask=is_half_H)
        tl.store(page_ptr + column_C, latent_C, mask=column_C < tl.where(slot >= 0, LATENT, 0))
        tl.store(page_ptr + LATENT + column_H, turned_H, mask=is_kept_half_H)
        tl.store(page_ptr + LATENT + HALF + column_H, other_H, mask=is_kept_half_H)
