"""Decode attention when all sequences begin with the same blocks: those are read once for many sequences.

A tile holds the queries of many sequences against one KV head, so the shared part becomes a product of
matrices; its states wait in the workspace. Each sequence's own tokens follow in the kernel of `paged_decode`,
which folds both. Two launches; where nothing is shared, the first finds nothing to do.

S sequences, T query tokens (token i belongs to sequence i), H query heads, K KV heads, G = H / K,
D head width, B blocks, N tokens per block, M blocks per row of the table. R query rows of a tile.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.base.errors import EngineError
from octavo.base.integers import ceil_div
from octavo.ops.paged_plain import AttentionTerms
from octavo.ops.triton.paged_decode import page_constants, paged_decode
from octavo.ops.triton.paged_decode_states import attend, save_states, split_length
from octavo.ops.triton.paged_decode_workspace import (
    SHARED_ROWS,
    DecodeWorkspace,
    Tuning,
    decode_splits,
    shared_splits,
    shared_tuning,
)
from octavo.ops.triton.pdl import pdl_options


@triton.jit(do_not_specialize=["num_splits", "shared_splits"])
def _shared_kernel(  # noqa: PLR0913
    q,
    keys,
    values,
    table,
    rows,
    lengths,
    counts,
    slopes,
    accs,
    stats,
    q_stride,
    table_stride,
    num_splits,
    shared_splits,
    SEQS: tl.constexpr,
    G: tl.constexpr,
    ROWS_PER_SEQ: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_STRIDE: tl.constexpr,
    HEAD_STRIDE: tl.constexpr,
    TOKEN_STRIDE: tl.constexpr,
    SCALE: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ROUNDS_BIASES: tl.constexpr,
    TILE: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    """One program per KV head, SEQS sequences and split of the shared tokens, all of which every query sees.

    The states of split i of n lie n - i slots before the sequence's own.
    """
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    head = tl.program_id(0)
    first_seq = tl.program_id(1) * SEQS
    split = tl.program_id(2)
    num_seqs = tl.load(counts)
    num_tokens = tl.load(counts + 3) * BLOCK_SIZE
    # All sequences begin with the same blocks: the first one's table serves.
    row = tl.load(rows).to(tl.int64)
    tokens = split_length(num_tokens, shared_splits, TILE, TILE)
    start = split * tokens
    if (first_seq >= num_seqs) | (start >= num_tokens):
        return

    r_R = tl.arange(0, SEQS * ROWS_PER_SEQ)
    d_D = tl.arange(0, BLOCK_D)
    seq_R = first_seq + r_R // ROWS_PER_SEQ
    g_R = r_R % ROWS_PER_SEQ
    is_real_R = (seq_R < num_seqs) & (g_R < G)
    q_RD = tl.load(
        q + (seq_R * q_stride + (head * G + g_R) * HEAD_DIM)[:, None] + d_D[None, :],
        mask=is_real_R[:, None] & (d_D < HEAD_DIM)[None, :],
        other=0.0,
    )
    if slopes is not None:
        slopes += head * G
    m_R, l_R, acc_RD = attend(
        q_RD,
        keys + head * HEAD_STRIDE,
        values + head * HEAD_STRIDE,
        table + row * table_stride,
        start,
        tl.minimum(start + tokens, num_tokens),
        slopes,
        g_R,
        tl.load(lengths + seq_R, mask=is_real_R, other=1) - 1,  # not compiled where there are no slopes
        TILE,
        G,
        HEAD_DIM,
        BLOCK_SIZE,
        BLOCK_STRIDE,
        TOKEN_STRIDE,
        SCALE,
        SOFT_CAP,
        ROUNDS_BIASES,
    )
    pair_R = (seq_R * tl.num_programs(0) + head).to(tl.int64)
    slot_R = pair_R * (shared_splits + num_splits) + shared_splits - tl.cdiv(num_tokens, tokens) + split
    save_states(accs, stats, slot_R * G + g_R, is_real_R, m_R, l_R, acc_RD, HEAD_DIM)


def paged_decode_shared(  # noqa: PLR0913
    q_THD: torch.Tensor,
    keys_BKND: torch.Tensor,
    values_BKND: torch.Tensor,
    table_RM: torch.Tensor,
    rows_S: torch.Tensor,
    lengths_S: torch.Tensor,
    counts: torch.Tensor,
    out_THD: torch.Tensor,
    terms: AttentionTerms,
    *,
    num_seqs: int,
    workspace: DecodeWorkspace,
    num_splits: int | None = None,
    num_shared_splits: int | None = None,
    tuning: Tuning | None = None,
    own_tuning: Tuning | None = None,
    tile_rows: int = SHARED_ROWS,
) -> None:
    """`paged_decode` for sequences whose first counts[3] blocks are the same (0: none).

    No sequence may be shorter than those blocks, counts[0] may not exceed num_seqs, and there must not be a
    window. The workspace must have been allocated with_shared. tuning and tile_rows (queries of a tile) are
    for the shared part, own_tuning is for the rest.
    """
    if terms.window is not None:
        raise EngineError("A window may hide shared blocks from some sequences: call paged_decode instead.")
    if num_seqs == 0:
        return
    num_kv_heads = keys_BKND.shape[1]
    constants = page_constants(q_THD, keys_BKND, values_BKND, out_THD, terms)
    seqs_per_tile = max(1, tile_rows // constants["ROWS_PER_SEQ"])
    if num_splits is None:
        num_splits = decode_splits(num_seqs, num_kv_heads, workspace.num_sms)
    if num_shared_splits is None:
        num_shared_splits = shared_splits(num_seqs, num_kv_heads, seqs_per_tile, workspace.num_sms)
    workspace.check(num_seqs * num_kv_heads, num_shared_splits + num_splits)
    tuning = tuning or shared_tuning(constants["BLOCK_D"] * q_THD.element_size())
    _shared_kernel[(num_kv_heads, ceil_div(num_seqs, seqs_per_tile), num_shared_splits)](
        q_THD,
        keys_BKND,
        values_BKND,
        table_RM,
        rows_S,
        lengths_S,
        counts,
        terms.slopes_H,
        workspace.accs,
        workspace.stats,
        q_THD.stride(0),
        table_RM.stride(0),
        num_splits,
        num_shared_splits,
        SEQS=seqs_per_tile,
        TILE=tuning.tile,
        **constants,
        num_warps=tuning.num_warps,
        num_stages=tuning.num_stages,
        **pdl_options(q_THD.device),
    )
    paged_decode(
        q_THD,
        keys_BKND,
        values_BKND,
        table_RM,
        rows_S,
        lengths_S,
        counts,
        out_THD,
        terms,
        num_seqs=num_seqs,
        workspace=workspace,
        num_splits=num_splits,
        tuning=own_tuning,
        shared_splits=num_shared_splits,
        shared_tile=tuning.tile,
    )
