"""Decode attention over the paged KV cache: one query token per sequence, which is its last token.

Memory-bound: every key and value is read once, for all query heads that share it. Few sequences are cut
into splits so that they fill the GPU; the program of a sequence's KV head that finishes last folds the
splits' states in their order, so that it does not matter which one that is.

S sequences, T query tokens (token i belongs to sequence i), H query heads, K KV heads, G = H / K,
D head width, B blocks, N tokens per block, M blocks per row of the table. R query rows of a tile.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from octavo.base.errors import EngineError
from octavo.ops.paged_plain import AttentionTerms
from octavo.ops.triton.paged_decode_states import (
    attend,
    empty_states,
    fold_states,
    save_states,
    split_length,
    write_out,
)
from octavo.ops.triton.paged_decode_workspace import (
    DecodeWorkspace,
    Tuning,
    decode_splits,
    decode_tuning,
    rows_per_seq,
)
from octavo.ops.triton.pdl import pdl_options

LEAST_SPLIT = 64
"""Tokens below which a split does not pay: folding costs about as long as reading this many."""
FEWEST_ROWS = 16
"""Rows of the smallest matrix product."""


@triton.jit(do_not_specialize=["num_splits", "split_tokens", "shared_splits", "shared_tile"])
def _decode_kernel(  # noqa: PLR0913
    q,
    keys,
    values,
    table,
    rows,
    lengths,
    counts,
    out,
    sinks,
    slopes,
    accs,
    stats,
    counters,
    q_stride,
    table_stride,
    out_stride,
    num_splits,
    split_tokens,
    shared_splits,
    shared_tile,
    G: tl.constexpr,
    R: tl.constexpr,
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
    WINDOW: tl.constexpr,
    TILE: tl.constexpr,
    IS_SPLIT: tl.constexpr,
    IS_SHARED: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    """One program per KV head, sequence and split.

    Where IS_SHARED, another kernel has left the states of the shared blocks' tokens in the slots in front of
    this pair's own.
    """
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    head = tl.program_id(0)
    seq = tl.program_id(1)
    split = tl.program_id(2)
    # Read together, before the first branch: each is a trip to memory.
    row = tl.load(rows + seq).to(tl.int64)
    end = tl.load(lengths + seq)
    num_seqs = tl.load(counts)
    last = end - 1
    start = 0
    num_shared_slots = 0
    if IS_SHARED:
        start = tl.load(counts + 3) * BLOCK_SIZE
        num_shared_slots = tl.cdiv(start, split_length(start, shared_splits, shared_tile, shared_tile))
    if WINDOW is not None:
        start = tl.maximum(end - WINDOW, 0)
    num_live = 1
    if IS_SPLIT:
        tokens = split_length(end - start, num_splits, split_tokens, TILE)
        num_live = tl.maximum(tl.cdiv(end - start, tokens), 1)
        start += split * tokens
        end = tl.minimum(start + tokens, end)
    if (seq >= num_seqs) | (split >= num_live):
        return

    r_R = tl.arange(0, R)
    d_D = tl.arange(0, BLOCK_D)
    q_RD = tl.load(
        q + seq * q_stride + (head * G + r_R)[:, None] * HEAD_DIM + d_D[None, :],
        mask=(r_R < G)[:, None] & (d_D < HEAD_DIM)[None, :],
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
        end,
        slopes,
        r_R,
        last + tl.zeros_like(r_R),
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

    out += seq * out_stride + head * G * HEAD_DIM
    if sinks is not None:
        sinks += head * G
    pair = seq * tl.num_programs(0) + head
    own_slot = pair.to(tl.int64) * (shared_splits + num_splits) + shared_splits
    first_slot = own_slot - num_shared_slots
    if num_live == 1:
        if IS_SHARED:
            m_R, l_R, acc_RD = fold_states(
                accs, stats, first_slot, num_shared_slots, m_R, l_R, acc_RD, G, HEAD_DIM
            )
        write_out(out, sinks, m_R, l_R, acc_RD, G, HEAD_DIM)
    elif IS_SPLIT:
        state_R = (own_slot + split) * G + r_R
        save_states(accs, stats, state_R, r_R < G, m_R, l_R, acc_RD, HEAD_DIM)
        # All threads have written before one of them counts this program as done.
        tl.debug_barrier()
        if tl.atomic_add(counters + pair, 1, sem="acq_rel", scope="gpu") == num_live - 1:
            tl.store(counters + pair, 0)
            m_F, l_F, acc_FD = empty_states(ROWS_PER_SEQ, BLOCK_D)
            m_F, l_F, acc_FD = fold_states(
                accs, stats, first_slot, num_shared_slots + num_live, m_F, l_F, acc_FD, G, HEAD_DIM
            )
            write_out(out, sinks, m_F, l_F, acc_FD, G, HEAD_DIM)


def paged_decode(  # noqa: PLR0913
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
    split_tokens: int = LEAST_SPLIT,
    tuning: Tuning | None = None,
    shared_splits: int = 0,
    shared_tile: int = 16,
) -> None:
    """Attend for the first min(counts[0], num_seqs) sequences into their rows of out_THD, and no others.

    Sequence i has lengths_S[i] tokens in the blocks table_RM[rows_S[i]]; its last one is the query. All
    int32 on the device; num_seqs bounds the grid. Rows of q_THD and out_THD may lie apart.

    With num_splits and split_tokens (the fewest tokens of a split) the same in every call, a sequence's
    result depends on its own length alone. shared_splits, shared_tile: see `paged_decode_shared`.
    """
    if num_seqs == 0:
        return
    num_kv_heads = keys_BKND.shape[1]
    constants = page_constants(q_THD, keys_BKND, values_BKND, out_THD, terms)
    if num_splits is None:
        num_splits = decode_splits(num_seqs, num_kv_heads, workspace.num_sms)
    workspace.check(num_seqs * num_kv_heads, shared_splits + num_splits)
    tuning = tuning or decode_tuning(constants["BLOCK_D"] * q_THD.element_size())
    _decode_kernel[(num_kv_heads, num_seqs, num_splits)](
        q_THD,
        keys_BKND,
        values_BKND,
        table_RM,
        rows_S,
        lengths_S,
        counts,
        out_THD,
        terms.sinks_H,
        terms.slopes_H,
        workspace.accs,
        workspace.stats,
        workspace.counters,
        q_THD.stride(0),
        table_RM.stride(0),
        out_THD.stride(0),
        num_splits,
        split_tokens,
        shared_splits,
        shared_tile,
        R=max(FEWEST_ROWS, constants["ROWS_PER_SEQ"]),
        WINDOW=terms.window,
        TILE=tuning.tile,
        IS_SPLIT=num_splits > 1,
        IS_SHARED=shared_splits > 0,
        **constants,
        num_warps=tuning.num_warps,
        num_stages=tuning.num_stages,
        **pdl_options(q_THD.device),
    )


def page_constants(
    q_THD: torch.Tensor,
    keys_BKND: torch.Tensor,
    values_BKND: torch.Tensor,
    out_THD: torch.Tensor,
    terms: AttentionTerms,
) -> dict[str, Any]:
    """What a kernel is compiled for: the model's shape, the pages' layout and the layer's terms."""
    num_heads, head_dim = q_THD.shape[1:]
    _, num_kv_heads, block_size, _ = keys_BKND.shape
    block_stride, head_stride, token_stride, _ = keys_BKND.stride()
    rows_are_whole = all(x.stride()[1:] == (head_dim, 1) for x in (q_THD, out_THD))
    if keys_BKND.stride() != values_BKND.stride() or keys_BKND.stride(3) != 1 or not rows_are_whole:
        raise EngineError(
            "Decode attention wants keys and values with one set of strides, and rows of heads without gaps: "
            "give both pages the same strides, the last one 1, and queries and outputs whose heads adjoin."
        )
    return {
        "G": num_heads // num_kv_heads,
        "ROWS_PER_SEQ": rows_per_seq(num_heads, num_kv_heads),
        "HEAD_DIM": head_dim,
        "BLOCK_D": max(16, triton.next_power_of_2(head_dim)),
        "BLOCK_SIZE": block_size,
        "BLOCK_STRIDE": block_stride,
        "HEAD_STRIDE": head_stride,
        "TOKEN_STRIDE": token_stride,
        "SCALE": terms.scale,
        "SOFT_CAP": terms.soft_cap,
        "ROUNDS_BIASES": terms.rounds_biases,
    }
