"""Norm, rotation and page writes of all heads in one launch. Shape letters as in octavo/ops/heads.py.

One program per token and a few heads of one kind. A token's results depend on that token only.

Limits on an H100, bytes per token about 2 (H + 2 K) D read and (H + 3 K) D written of 2 bytes each: llama8b
(32, 8, 128) 27 KB, so 8192 tokens 218 MB in 75 us and 256 tokens 3.5 us; one token is three trips to
memory, position to angles to result: about 3 us, 2 with dependent launch.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from octavo.ops.triton.pdl import pdl_options


class HeadTile(NamedTuple):
    """Heads of a program; values of each half of the heads that a thread holds."""

    heads: int
    values_per_thread: int


TILE = HeadTile(8, 8)


def prepare_heads(  # noqa: PLR0913
    qkv_TO: torch.Tensor,
    positions_T: torch.Tensor,
    slots_T: torch.Tensor,
    rotation_PR: torch.Tensor | None,
    q_norm_D: torch.Tensor | None,
    k_norm_D: torch.Tensor | None,
    epsilon: float,
    keys_BKND: torch.Tensor,
    values_BKND: torch.Tensor,
    num_heads: int,
    tile: HeadTile = TILE,
) -> None:
    """Queries and keys change in place; keys and values go to their slots."""
    _, num_kv_heads, block_size, head_dim = keys_BKND.shape
    strides = keys_BKND.stride()
    assert strides == values_BKND.stride() and strides[3] == 1, (
        "keys and values lie alike, heads in one piece"
    )
    assert qkv_TO.stride(1) == 1, "a token's heads lie in one piece"
    rotated = head_dim if rotation_PR is None else rotation_PR.shape[1]
    assert rotated % 2 == 0, "halves are rotated against each other"
    padded_half = triton.next_power_of_2(rotated // 2)
    q_parts, kv_parts = triton.cdiv(num_heads, tile.heads), triton.cdiv(num_kv_heads, tile.heads)
    threads = tile.heads * padded_half // tile.values_per_thread
    _prepare_heads_kernel[(len(qkv_TO), q_parts + 2 * kv_parts)](
        qkv_TO,
        positions_T,
        slots_T,
        rotation_PR,
        q_norm_D,
        k_norm_D,
        keys_BKND,
        values_BKND,
        epsilon,
        qkv_TO.stride(0),
        strides[0],
        strides[1],
        strides[2],
        NUM_HEADS=num_heads,
        NUM_KV_HEADS=num_kv_heads,
        HEAD_DIM=head_dim,
        BLOCK_SIZE=block_size,
        HALF=rotated // 2,
        PADDED_HALF=padded_half,
        PADDED_REST=triton.next_power_of_2(max(head_dim - rotated, 1)),
        TILE_HEADS=tile.heads,
        num_warps=min(max(threads // 32, 1), 8),
        **pdl_options(qkv_TO.device),
    )


@triton.jit
def _prepare_heads_kernel(  # noqa: PLR0913
    qkv_ptr,
    positions_ptr,
    slots_ptr,
    rotation_ptr,  # None: nothing is rotated
    q_norm_ptr,  # None: queries are not normed
    k_norm_ptr,
    keys_ptr,
    values_ptr,
    epsilon,
    qkv_stride,
    block_stride,
    head_stride,
    slot_stride,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    PADDED_REST: tl.constexpr,
    TILE_HEADS: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    Q_PARTS: tl.constexpr = (NUM_HEADS + TILE_HEADS - 1) // TILE_HEADS
    KV_PARTS: tl.constexpr = (NUM_KV_HEADS + TILE_HEADS - 1) // TILE_HEADS
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    q_ptr = qkv_ptr + token * qkv_stride
    k_ptr = q_ptr + NUM_HEADS * HEAD_DIM
    v_ptr = k_ptr + NUM_KV_HEADS * HEAD_DIM
    position_ptr = positions_ptr + token
    slot_ptr = slots_ptr + token
    if part < Q_PARTS:
        _prepare_part(
            q_ptr, part * TILE_HEADS, NUM_HEADS, position_ptr, rotation_ptr, q_norm_ptr, epsilon,
            slot_ptr, None, block_stride, head_stride, slot_stride,
            HEAD_DIM, BLOCK_SIZE, HALF, PADDED_HALF, PADDED_REST, TILE_HEADS,
        )  # fmt: skip
    elif part < Q_PARTS + KV_PARTS:
        _prepare_part(
            k_ptr, (part - Q_PARTS) * TILE_HEADS, NUM_KV_HEADS, position_ptr, rotation_ptr, k_norm_ptr,
            epsilon, slot_ptr, keys_ptr, block_stride, head_stride, slot_stride,
            HEAD_DIM, BLOCK_SIZE, HALF, PADDED_HALF, PADDED_REST, TILE_HEADS,
        )  # fmt: skip
    else:
        _prepare_part(
            v_ptr, (part - Q_PARTS - KV_PARTS) * TILE_HEADS, NUM_KV_HEADS, position_ptr, None, None, epsilon,
            slot_ptr, values_ptr, block_stride, head_stride, slot_stride,
            HEAD_DIM, BLOCK_SIZE, HALF, PADDED_HALF, PADDED_REST, TILE_HEADS,
        )  # fmt: skip


@triton.jit
def _prepare_part(  # noqa: PLR0913
    heads_ptr,
    first_head,
    num_heads,
    position_ptr,
    rotation_ptr,  # None: these heads are not rotated
    norm_ptr,  # None: not normed
    epsilon,
    slot_ptr,
    pages_ptr,  # None: these heads have no place in the pages
    block_stride,
    head_stride,
    slot_stride,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HALF: tl.constexpr,
    PADDED_HALF: tl.constexpr,
    PADDED_REST: tl.constexpr,
    TILE_HEADS: tl.constexpr,
):
    """All reads come before the first use of any, so that none waits longer than it must: those that lead
    to further addresses first.
    """
    if rotation_ptr is not None:
        position = tl.load(position_ptr)
    if pages_ptr is not None:
        slot = tl.load(slot_ptr)
    heads = first_head + tl.arange(0, TILE_HEADS)[:, None]
    columns = tl.arange(0, PADDED_HALF)
    rest_columns = 2 * HALF + tl.arange(0, PADDED_REST)
    is_half = columns < HALF
    is_rest = rest_columns < HEAD_DIM
    inside = (heads < num_heads) & is_half[None, :]
    rest_inside = (heads < num_heads) & is_rest[None, :]
    HAS_REST: tl.constexpr = HEAD_DIM > 2 * HALF
    head_ptrs = heads_ptr + heads * HEAD_DIM
    head = _load(head_ptrs, columns[None, :], rest_columns[None, :], inside, rest_inside, HALF, HAS_REST)
    if norm_ptr is not None:
        weight = _load(norm_ptr, columns, rest_columns, is_half, is_rest, HALF, HAS_REST)
    if rotation_ptr is not None:
        angles_ptr = rotation_ptr + position.to(tl.int64) * (2 * HALF)
        cosines = tl.load(angles_ptr + columns, mask=is_half, other=0.0)[None, :]
        sines = tl.load(angles_ptr + HALF + columns, mask=is_half, other=0.0)[None, :]

    if norm_ptr is not None:
        head = _normed(head, weight, epsilon, HEAD_DIM, HAS_REST)
    if rotation_ptr is not None:
        first, second = head[0].to(tl.float32), head[1].to(tl.float32)
        head = first * cosines - second * sines, second * cosines + first * sines, head[2]

    if norm_ptr is not None or rotation_ptr is not None:
        _store(head_ptrs, head, columns, rest_columns, inside, rest_inside, HALF, HAS_REST)
    if pages_ptr is not None:
        # A page array may have more than 2^31 values.
        block = (slot // BLOCK_SIZE).to(tl.int64)
        page_ptrs = pages_ptr + block * block_stride + (slot % BLOCK_SIZE) * slot_stride + heads * head_stride
        # No head is kept without a slot.
        is_kept = heads < tl.where(slot >= 0, num_heads, 0)
        _store(
            page_ptrs, head, columns, rest_columns, inside & is_kept, rest_inside & is_kept, HALF, HAS_REST
        )


@triton.jit
def _load(ptrs, columns, rest_columns, inside, rest_inside, HALF: tl.constexpr, HAS_REST: tl.constexpr):
    """Two halves, and what heads have besides where they are wider than their rotation."""
    first = tl.load(ptrs + columns, mask=inside, other=0.0)
    second = tl.load(ptrs + HALF + columns, mask=inside, other=0.0)
    rest = first
    if HAS_REST:
        rest = tl.load(ptrs + rest_columns, mask=rest_inside, other=0.0)
    return first, second, rest


@triton.jit
def _store(
    ptrs, head, columns, rest_columns, inside, rest_inside, HALF: tl.constexpr, HAS_REST: tl.constexpr
):
    tl.store(ptrs + columns[None, :], head[0], mask=inside)
    tl.store(ptrs + HALF + columns[None, :], head[1], mask=inside)
    if HAS_REST:
        tl.store(ptrs + rest_columns[None, :], head[2], mask=rest_inside)


@triton.jit
def _normed(head, weight, epsilon, HEAD_DIM: tl.constexpr, HAS_REST: tl.constexpr):
    first, second, rest = head[0].to(tl.float32), head[1].to(tl.float32), head[2].to(tl.float32)
    squares = tl.sum(first * first + second * second, 1)
    if HAS_REST:
        squares += tl.sum(rest * rest, 1)
    scale = tl.rsqrt(squares / HEAD_DIM + epsilon)[:, None]
    return (
        _scaled(first, scale, weight[0], head[0].dtype),
        _scaled(second, scale, weight[1], head[0].dtype),
        _scaled(rest, scale, weight[2], head[0].dtype) if HAS_REST else rest,
    )


@triton.jit
def _scaled(x, scale, weight, DTYPE: tl.constexpr):
    """Rounded before the weight and after it, as the plain norm does."""
    rounded = (x * scale).to(weight.dtype).to(tl.float32)
    return (rounded * weight[None, :].to(tl.float32)).to(DTYPE)
