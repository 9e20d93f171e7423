"""Attention of chunks (prompts, parts of prompts, what follows a cached prefix) over paged KV.

A program computes a block of query tokens for the query heads that share one KV head: its rows are
(token, head) pairs, so keys and values are read once for the whole group. It walks the keys in tiles that
begin at multiples of the tile's size, so with the same tile a row's result depends on its own query, keys and
values only: not on where its chunk began, nor on its neighbours.

Limits on an H100, 4 T H L D operations: 16 chunks of 128 at context 2048 with 32 heads of 128 are
67 GFLOP, 90 us at 750 TFLOP/s.

S sequences, T query tokens, H query heads, K KV heads, G = H / K, D head width, B blocks, N tokens per block,
R rows of the block table, M blocks per row. In the kernel M are a tile's rows (token, head) and N its keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl

from octavo.ops.paged_plain import AttentionTerms
from octavo.ops.triton.linear_biases import linear_biases


@dataclass(frozen=True)
class ChunkTile:
    """What a program works on at a time. Rows and keys are powers of two."""

    rows: int
    """Query tokens times the heads of a group. 64 a warp group on Hopper."""
    keys: int
    warps: int
    stages: int
    """Tiles of keys and values in shared memory at a time."""

    def shared_bytes(self, row_bytes: int) -> int:
        return (self.rows + 2 * self.stages * self.keys) * row_bytes


def choose_tile(head_dim: int, itemsize: int, *, is_short: bool, shared_memory: int) -> ChunkTile:
    """`is_short`: chunks whose tokens times group are about 64 or fewer.

    128 rows where there are that many: with 64 the second cache would have to deliver 7 TB/s. On Hopper
    these tiles take 184 to 254 registers a thread and spill none; with a limit of 128, for two programs at a
    time, the assembler waits after every matrix instruction.
    """
    row_bytes = max(16, triton.next_power_of_2(head_dim)) * itemsize
    if itemsize > 2:  # no tensor cores: exact products
        tile = ChunkTile(64, 32, 8, 2)
    elif is_short:
        tile = ChunkTile(64, 64, 4, 3) if head_dim <= 128 else ChunkTile(64, 32, 4, 2)
    else:
        tile = ChunkTile(128, 128, 8, 3) if head_dim <= 128 else ChunkTile(128, 32, 8, 2)
    while tile.shared_bytes(row_bytes) > shared_memory and (tile.stages > 1 or tile.keys > 16):
        if tile.stages > 1:
            tile = ChunkTile(tile.rows, tile.keys, tile.warps, tile.stages - 1)
        else:
            tile = ChunkTile(tile.rows, tile.keys // 2, tile.warps, 2)
    return tile


def paged_chunks(  # noqa: PLR0913
    q_THD: torch.Tensor,
    keys_BKND: torch.Tensor,
    values_BKND: torch.Tensor,
    table_RM: torch.Tensor,
    rows_S: torch.Tensor,
    starts_S1: torch.Tensor,
    lengths_S: torch.Tensor,
    counts: torch.Tensor,
    out_THD: torch.Tensor,
    terms: AttentionTerms,
    *,
    max_tokens: int,
    max_seqs: int,
    singles_too: bool = False,
    tile: ChunkTile | None = None,
) -> None:
    """Write the attention of sequences counts[0] .. counts[1] - 1 to their tokens' rows of `out_THD`.

    counts: [sequences of one token (they come first), sequences, ...]. rows_S: each sequence's row of
    `table_RM`; starts_S1: where its query tokens begin, and after the last one where they end; lengths_S: its
    tokens, these included, whose keys and values are in the pages. All int32.
    max_tokens, max_seqs: upper bounds for what is served here, known to the host.
    singles_too: serve every sequence from 0 on, always in the same tile: a token's result has the same bits
    alone, in a crowd, and in chunks of any size.
    """
    group = q_THD.shape[1] // keys_BKND.shape[1]
    head_dim = q_THD.shape[2]
    assert q_THD.stride(2) == keys_BKND.stride(3) == out_THD.stride(2) == 1, "heads lie in one piece"
    assert keys_BKND.stride() == values_BKND.stride(), "keys and values lie alike"
    if tile is None:
        is_short = singles_too or max_tokens * group <= 64 * max_seqs
        tile = _tile_for(head_dim, q_THD.element_size(), is_short, q_THD.device)
    rows = max(tile.rows, triton.next_power_of_2(group))
    # Every sequence may end in a part of a block, and two blocks' borders may fall between neighbours.
    num_blocks = max_tokens // (rows // group) + max_seqs + 1
    _paged_chunks_kernel[(num_blocks, keys_BKND.shape[1])](
        q_THD,
        keys_BKND,
        values_BKND,
        table_RM,
        rows_S,
        starts_S1,
        lengths_S,
        counts,
        out_THD,
        terms.sinks_H,
        terms.slopes_H,
        terms.scale,
        terms.soft_cap,
        q_THD.stride(0),
        q_THD.stride(1),
        out_THD.stride(0),
        out_THD.stride(1),
        keys_BKND.stride(0),
        keys_BKND.stride(1),
        keys_BKND.stride(2),
        table_RM.stride(0),
        SINGLES_TOO=singles_too,
        WINDOW=terms.window or 0,
        ROUNDS_BIASES=terms.rounds_biases,
        GROUP=group,
        BLOCK_SIZE=keys_BKND.shape[2],
        HEAD_DIM=head_dim,
        BLOCK_M=rows,
        BLOCK_N=tile.keys,
        BLOCK_D=max(16, triton.next_power_of_2(head_dim)),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )


@cache
def _tile_for(head_dim: int, itemsize: int, is_short: bool, device: torch.device) -> ChunkTile:
    shared_memory = 1 << 30
    if device.type == "cuda":
        # A program may have all but the 1 KB that the driver keeps.
        properties = torch.cuda.get_device_properties(device)
        shared_memory = properties.shared_memory_per_multiprocessor - 1024
    return choose_tile(head_dim, itemsize, is_short=is_short, shared_memory=shared_memory)


@triton.jit
def _paged_chunks_kernel(  # noqa: C901, PLR0913, PLR0915
    q_ptr,
    keys_ptr,
    values_ptr,
    table_ptr,
    rows_ptr,
    starts_ptr,
    lengths_ptr,
    counts_ptr,
    out_ptr,
    sinks_ptr,
    slopes_ptr,
    scale,
    soft_cap,
    q_stride_token,
    q_stride_head,
    out_stride_token,
    out_stride_head,
    stride_block,
    stride_head,
    stride_slot,
    table_stride,
    SINGLES_TOO: tl.constexpr,
    WINDOW: tl.constexpr,
    ROUNDS_BIASES: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    BLOCK_Q: tl.constexpr = BLOCK_M // GROUP
    LOG2_E: tl.constexpr = 1.4426950408889634

    # Which tokens of which sequence.
    num_sequences = tl.load(counts_ptr + 1)
    first = tl.where(SINGLES_TOO, 0, tl.load(counts_ptr))
    if first >= num_sequences:
        return
    # From the end: the last blocks of a prompt see the most keys, and should not be what is left over.
    block = first_block(starts_ptr, num_sequences, BLOCK_Q) - 1 - tl.program_id(0)
    if block < first_block(starts_ptr, first, BLOCK_Q):
        return
    sequence = find_sequence(starts_ptr, block, first, num_sequences, BLOCK_Q)
    start = tl.load(starts_ptr + sequence)
    num_queries = tl.load(starts_ptr + sequence + 1) - start
    token = (block - start // BLOCK_Q - sequence) * BLOCK_Q
    if token >= num_queries:
        return
    num_tokens = tl.minimum(num_queries - token, BLOCK_Q)
    position = tl.load(lengths_ptr + sequence) - num_queries + token

    # The tile's queries. Rows past the last token stand where it stands, so that no row sees nothing.
    kv_head = tl.program_id(1)
    row_M = tl.arange(0, BLOCK_M)
    column_D = tl.arange(0, BLOCK_D)
    token_M = row_M // GROUP
    head_M = kv_head * GROUP + row_M % GROUP
    position_M = position + tl.minimum(token_M, num_tokens - 1)
    is_token_M = token_M < num_tokens
    is_real_MD = is_token_M[:, None] & (column_D < HEAD_DIM)[None, :]
    q_offset_M = (start + token + token_M).to(tl.int64) * q_stride_token + head_M * q_stride_head
    q_MD = tl.load(q_ptr + q_offset_M[:, None] + column_D[None, :], mask=is_real_MD, other=0.0)

    # Highest score (in powers of two) and sum of weights so far. A sink is a score without a value.
    if sinks_ptr is not None:
        highest_M = tl.load(sinks_ptr + head_M, mask=is_token_M, other=0.0).to(tl.float32) * LOG2_E
        total_M = tl.full([BLOCK_M], 1.0, tl.float32)
    else:
        highest_M = tl.full([BLOCK_M], float("-inf"), tl.float32)
        total_M = tl.zeros([BLOCK_M], tl.float32)
    out_MD = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    if slopes_ptr is not None:
        slope_M = tl.load(slopes_ptr + head_M)

    end_key = position + num_tokens
    first_key = tl.maximum(position - WINDOW + 1, 0) if WINDOW else 0
    first_tile = first_key // BLOCK_N * BLOCK_N
    table_row_ptr = table_ptr + tl.load(rows_ptr + sequence).to(tl.int64) * table_stride
    head_offset = kv_head.to(tl.int64) * stride_head
    key_N = first_tile + tl.arange(0, BLOCK_N)
    block_N = tl.load(table_row_ptr + key_N // BLOCK_SIZE, mask=key_N < end_key, other=0)
    for tile in tl.range(first_tile, end_key, BLOCK_N):
        key_N = tile + tl.arange(0, BLOCK_N)
        # Pages hold garbage where nothing was written or a window has passed, and 0 * NaN is NaN: such
        # values are read as zeros.
        is_read_N = key_N < end_key
        if WINDOW:
            is_read_N &= key_N >= first_key
        is_read_ND = is_read_N[:, None]
        if BLOCK_D != HEAD_DIM:
            is_read_ND &= (column_D < HEAD_DIM)[None, :]
        slot_N = head_offset + block_N.to(tl.int64) * stride_block + (key_N % BLOCK_SIZE) * stride_slot
        offset_ND = slot_N[:, None] + column_D[None, :]
        k_ND = tl.load(keys_ptr + offset_ND, mask=is_read_ND, other=0.0)
        v_ND = tl.load(values_ptr + offset_ND, mask=is_read_ND, other=0.0)
        # The next tile's blocks, a tile ahead of the loads that need them.
        next_N = key_N + BLOCK_N
        block_N = tl.load(table_row_ptr + next_N // BLOCK_SIZE, mask=next_N < end_key, other=0)

        score_MN = tl.dot(q_MD, tl.trans(k_ND), input_precision="ieee")
        if soft_cap is not None:
            # tanh(x) = 1 - 2 / (exp(2x) + 1)
            doubled_MN = tl.exp2(score_MN * (2.0 * LOG2_E * scale / soft_cap))
            score_MN = (soft_cap * LOG2_E) * (1.0 - 2.0 / (doubled_MN + 1.0))
            unit = 1.0
        else:
            unit = scale * LOG2_E
        if slopes_ptr is not None:
            score_MN = score_MN * unit + linear_biases(
                slope_M[:, None], position_M[:, None], key_N[None, :], scale, ROUNDS_BIASES
            )
            unit = 1.0
        is_edge = tile + BLOCK_N > position + 1
        if WINDOW:
            is_edge |= tile <= end_key - 1 - WINDOW
        if is_edge:
            is_hidden_MN = key_N[None, :] > position_M[:, None]
            if WINDOW:
                is_hidden_MN |= key_N[None, :] <= position_M[:, None] - WINDOW
            score_MN = tl.where(is_hidden_MN, float("-inf"), score_MN)

        new_highest_M = tl.maximum(highest_M, tl.max(score_MN, 1) * unit)
        base_M = new_highest_M
        if WINDOW:  # a row's window may begin in a later tile; without one every row sees key 0
            base_M = tl.where(new_highest_M == float("-inf"), 0.0, new_highest_M)
        weight_MN = tl.exp2(score_MN * unit - base_M[:, None])
        decay_M = tl.exp2(highest_M - base_M)
        total_M = total_M * decay_M + tl.sum(weight_MN, 1)
        out_MD = out_MD * decay_M[:, None]
        out_MD = tl.dot(weight_MN.to(v_ND.dtype), v_ND, out_MD, input_precision="ieee")
        highest_M = new_highest_M

    out_MD = out_MD / total_M[:, None]
    out_offset_M = (start + token + token_M).to(tl.int64) * out_stride_token + head_M * out_stride_head
    out_ptrs_MD = out_ptr + out_offset_M[:, None] + column_D[None, :]
    tl.store(out_ptrs_MD, out_MD.to(out_ptr.dtype.element_ty), mask=is_real_MD)


@triton.jit
def first_block(starts_ptr, sequence, BLOCK_Q: tl.constexpr):
    """Number of a sequence's first query block. The next one's is far enough for any chunk between them."""
    return tl.load(starts_ptr + sequence) // BLOCK_Q + sequence


@triton.jit
def find_sequence(starts_ptr, block, first, end, BLOCK_Q: tl.constexpr):
    """The sequence among first .. end - 1 that has a query block. 64 at a time: two waits for up to 4096."""
    while end - first > 1:
        step = tl.cdiv(end - first, 64)
        probe = first + tl.arange(0, 64) * step
        is_inside = probe < end
        begin = tl.load(starts_ptr + probe, mask=is_inside, other=0) // BLOCK_Q + probe
        first += (tl.sum((is_inside & (begin <= block)).to(tl.int32)) - 1) * step
        end = tl.minimum(first + step, end)
    return first
