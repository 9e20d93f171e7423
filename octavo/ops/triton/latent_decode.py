"""Decode attention over latent rows: one query token per sequence, all its heads at once.

Every row is read once for up to 64 heads, as key and as value. Few sequences are cut into splits so that they
fill the GPU; a second kernel folds the splits' states, in their order, head by head.

Limits on an H100, 2 W bytes a token: DeepSeek-V2-Lite at 256 sequences of 384 reads 113 MB a layer, 34 us at
3.35 TB/s, 27 layers 0.9 ms a step; 1 of 4096 reads 4.7 MB, 1.4 us and two launches. 128 heads are
2 H (2 C + R) operations a token, 242 for each byte: there the matrix units are as busy as the memory.

S sequences, T query tokens (token i belongs to sequence i), H heads, C width of the latent, R rotated width,
W = C + R, B blocks, N tokens per block.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.triton.latent_states import (
    LatentTile,
    attend_latents,
    fitting,
    head_blocks,
    latent_constants,
    load_queries,
    row_bytes,
)
from octavo.ops.triton.paged_decode_states import (
    empty_states,
    fold_states,
    save_states,
    split_length,
    write_out,
)
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace, decode_splits
from octavo.ops.triton.pdl import pdl_options

LEAST_SPLIT = 64
"""Tokens below which a split does not pay."""
FEWEST_ROWS = 16
"""Rows of the smallest matrix product."""


@triton.jit(do_not_specialize=["num_splits", "split_tokens"])
def _latent_decode_kernel(  # noqa: PLR0913
    q,
    q_rotated,
    pages,
    table,
    rows,
    lengths,
    counts,
    out,
    accs,
    stats,
    q_stride,
    rotated_stride,
    table_stride,
    out_stride,
    num_splits,
    split_tokens,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    G: tl.constexpr,
    LATENT: tl.constexpr,
    ROTATED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_STRIDE: tl.constexpr,
    TOKEN_STRIDE: tl.constexpr,
    ROTATED_HEAD_STRIDE: tl.constexpr,
    SCALE: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    """One program per G heads, sequence and split."""
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    part = tl.program_id(0)
    seq = tl.program_id(1)
    split = tl.program_id(2)
    # Read together, before the first branch: each is a trip to memory.
    row = tl.load(rows + seq).to(tl.int64)
    length = tl.load(lengths + seq)
    num_seqs = tl.load(counts)
    start, end, num_live = 0, length, 1
    if IS_SPLIT:
        tokens = split_length(length, num_splits, split_tokens, TILE)
        num_live = tl.cdiv(length, tokens)
        start = split * tokens
        end = tl.minimum(start + tokens, length)
    if (seq >= num_seqs) | (split >= num_live):
        return

    g_M = tl.arange(0, ROWS)
    head_M = part * G + g_M
    q_MC, q_MR = load_queries(
        q,
        q_rotated,
        seq * q_stride + head_M * LATENT,
        seq * rotated_stride + head_M * ROTATED_HEAD_STRIDE,
        g_M < G,
        LATENT,
        ROTATED,
        BLOCK_C,
        BLOCK_R,
    )
    m_M, l_M, acc_MC = attend_latents(
        q_MC,
        q_MR,
        pages,
        table + row * table_stride,
        tl.full([ROWS], 0, tl.int32) + (end - 1),
        start,
        end,
        TILE,
        LATENT,
        ROTATED,
        BLOCK_SIZE,
        BLOCK_STRIDE,
        TOKEN_STRIDE,
        SCALE,
    )
    if num_live == 1:
        write_out(out + seq * out_stride + part * G * LATENT, None, m_M, l_M, acc_MC, G, LATENT)
    elif IS_SPLIT:
        pair = seq.to(tl.int64) * tl.num_programs(0) + part
        state_M = (pair * num_splits + split) * G + g_M
        save_states(accs, stats, state_M, g_M < G, m_M, l_M, acc_MC, LATENT)


@triton.jit(do_not_specialize=["num_splits", "split_tokens"])
def _fold_kernel(  # noqa: PLR0913
    lengths,
    counts,
    out,
    accs,
    stats,
    out_stride,
    num_splits,
    split_tokens,
    TILE: tl.constexpr,
    G: tl.constexpr,
    LATENT: tl.constexpr,
    BLOCK_C: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    """One program per head and sequence; nothing to do for those that were not split."""
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    head = tl.program_id(0)
    seq = tl.program_id(1)
    length = tl.load(lengths + seq)
    num_seqs = tl.load(counts)
    num_live = tl.cdiv(length, split_length(length, num_splits, split_tokens, TILE))
    if (seq >= num_seqs) | (num_live <= 1):
        return
    pair = seq.to(tl.int64) * (tl.num_programs(0) // G) + head // G
    m_1, l_1, acc_1C = empty_states(1, BLOCK_C)
    m_1, l_1, acc_1C = fold_states(
        accs + head % G * LATENT,
        stats + head % G * 2,
        pair * num_splits,
        num_live,
        m_1,
        l_1,
        acc_1C,
        G,
        LATENT,
    )
    write_out(out + seq * out_stride + head * LATENT, None, m_1, l_1, acc_1C, 1, LATENT)


def latent_decode(  # noqa: PLR0913
    q_THC: torch.Tensor,
    q_THR: torch.Tensor,
    pages_BNW: torch.Tensor,
    table_RM: torch.Tensor,
    rows_S: torch.Tensor,
    lengths_S: torch.Tensor,
    counts: torch.Tensor,
    out_THC: torch.Tensor,
    scale: float,
    *,
    num_seqs: int,
    workspace: DecodeWorkspace,
    num_splits: int | None = None,
    split_tokens: int = LEAST_SPLIT,
    tile: LatentTile | None = None,
) -> None:
    """Sums of latents for the first min(counts[0], num_seqs) sequences, in their rows of out_THC.

    Sequence i has lengths_S[i] tokens (at least one) in the blocks table_RM[rows_S[i]]; its last one is the
    query. All int32 on the device; num_seqs bounds the grid. workspace: for `head_blocks` KV heads as wide as
    latents.
    """
    if num_seqs == 0:
        return
    constants = latent_constants(q_THC, q_THR, pages_BNW, out_THC, scale)
    num_heads = q_THC.shape[1]
    num_parts = head_blocks(num_heads)
    if num_splits is None:
        num_splits = decode_splits(num_seqs, num_parts, workspace.num_sms)
    workspace.check(num_seqs * num_parts, num_splits)
    if tile is None:
        tile = decode_tile(constants["G"], constants["LATENT"], constants["ROTATED"], q_THC)
    pdl = pdl_options(q_THC.device)
    _latent_decode_kernel[(num_parts, num_seqs, num_splits)](
        q_THC,
        q_THR,
        pages_BNW,
        table_RM,
        rows_S,
        lengths_S,
        counts,
        out_THC,
        workspace.accs,
        workspace.stats,
        q_THC.stride(0),
        q_THR.stride(0),
        table_RM.stride(0),
        out_THC.stride(0),
        num_splits,
        split_tokens,
        ROWS=tile.rows,
        TILE=tile.keys,
        IS_SPLIT=num_splits > 1,
        **constants,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
        **pdl,
    )
    if num_splits > 1:
        _fold_kernel[(num_heads, num_seqs)](
            lengths_S,
            counts,
            out_THC,
            workspace.accs,
            workspace.stats,
            out_THC.stride(0),
            num_splits,
            split_tokens,
            TILE=tile.keys,
            G=constants["G"],
            LATENT=constants["LATENT"],
            BLOCK_C=constants["BLOCK_C"],
            num_warps=4,
            **pdl,
        )


def decode_tile(heads: int, latent: int, rotated: int, q_THC: torch.Tensor) -> LatentTile:
    """heads: that share a program.

    Few heads: 93 KB of shared memory, so that two programs of a Hopper processor keep four tiles of rows on
    their way. From 64 rows on Hopper multiplies whole warp groups.
    """
    rows = max(FEWEST_ROWS, triton.next_power_of_2(heads))
    itemsize = q_THC.element_size()
    if itemsize > 2:  # exact products, without matrix units
        wanted = LatentTile(rows=rows, keys=16, num_warps=8, num_stages=1)
    elif rows <= 32:
        wanted = LatentTile(rows=rows, keys=32, num_warps=4, num_stages=3)
    else:
        wanted = LatentTile(rows=rows, keys=64, num_warps=8, num_stages=2)
    return fitting(wanted, row_bytes(latent, rotated, itemsize), q_THC.device, fewest_rows=rows)
