"""What the kernels of decode attention are made of: softmax states over parts of a sequence.

Scores are in units of log2, so that every exponential is an exp2. The softmax of a query over some tokens
is a state: the highest score m, the sum l of the weights 2^(s - m), and the values so weighted, acc. States
over different tokens fold into one: that is how a sequence is shared out over programs, by way of slots in
a workspace that hold the states of one KV head's queries.

R query rows (of one KV head, padded), G query heads per KV head, D head width (padded to a power of two),
L tokens of a tile, P slots.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from octavo.ops.triton.linear_biases import linear_biases

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def split_length(num_tokens, num_splits, least, tile):
    """Tokens of each split but the last: whole tiles, at least `least`."""
    return tl.maximum(tl.cdiv(tl.cdiv(num_tokens, num_splits), tile) * tile, least)


@triton.jit
def empty_states(R: tl.constexpr, BLOCK_D: tl.constexpr):
    """Of no tokens. m is lower than any score and still a number, so that differences from it are too."""
    m_R = tl.full([R], -1e38, tl.float32)
    return m_R, tl.zeros([R], tl.float32), tl.zeros([R, BLOCK_D], tl.float32)


@triton.jit
def attend(  # noqa: PLR0913
    q_RD,
    keys,
    values,
    table,
    start,
    end,
    slopes,
    g_R,
    last_R,
    TILE: tl.constexpr,
    G: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_STRIDE: tl.constexpr,
    TOKEN_STRIDE: tl.constexpr,
    SCALE: tl.constexpr,
    SOFT_CAP: tl.constexpr,
    ROUNDS_BIASES: tl.constexpr,
):
    """The state of R queries over tokens start..end (possibly none) of the sequence with this block table.

    keys, values, slopes: of one KV head. g_R: each query's head among its G; last_R: its position. What lies
    past `end` may be NaN and 0 * NaN is NaN, so it is not loaded.
    """
    R: tl.constexpr = q_RD.shape[0]
    BLOCK_D: tl.constexpr = q_RD.shape[1]
    d_D = tl.arange(0, BLOCK_D)
    m_R, _, acc_RD = empty_states(R, BLOCK_D)
    # Summed over the tokens once, at the end: one exchange between warps less per tile.
    l_RL = tl.zeros([R, TILE], tl.float32)
    if slopes is not None:
        slope_R = tl.load(slopes + g_R, mask=g_R < G, other=0.0)
    token_L = start + tl.arange(0, TILE)
    # A tile's block ids are read one tile ahead. Read inside, they would take a stage of the pipeline
    # that then keeps half as many keys and values in flight.
    block_L = tl.load(table + token_L // BLOCK_SIZE, mask=token_L < end, other=0)
    for _ in tl.range(start, end, TILE):
        is_seen_L = token_L < end
        offset_L = block_L.to(tl.int64) * BLOCK_STRIDE + (token_L % BLOCK_SIZE) * TOKEN_STRIDE
        offset_LD = offset_L[:, None] + d_D[None, :]
        mask_LD = is_seen_L[:, None] & (d_D < HEAD_DIM)[None, :]
        k_LD = tl.load(keys + offset_LD, mask=mask_LD, other=0.0)
        s_RL = tl.dot(q_RD, tl.trans(k_LD), input_precision="ieee")
        if SOFT_CAP is None:
            s_RL *= SCALE * LOG2_E
        else:
            # tanh(x) = 1 - 2 / (e^2x + 1), right at both ends: e^2x may be 0 or infinite.
            e_RL = tl.exp2(s_RL * (2.0 * SCALE / SOFT_CAP * LOG2_E))
            s_RL = (1.0 - 2.0 / (e_RL + 1.0)) * (SOFT_CAP * LOG2_E)
        if slopes is not None:
            s_RL += linear_biases(slope_R[:, None], last_R[:, None], token_L[None, :], SCALE, ROUNDS_BIASES)
        s_RL = tl.where(is_seen_L[None, :], s_RL, float("-inf"))
        new_m_R = tl.maximum(m_R, tl.max(s_RL, 1))
        decay_R = tl.exp2(m_R - new_m_R)
        p_RL = tl.exp2(s_RL - new_m_R[:, None])
        l_RL = l_RL * decay_R[:, None] + p_RL
        v_LD = tl.load(values + offset_LD, mask=mask_LD, other=0.0)
        acc_RD = tl.dot(p_RL.to(v_LD.dtype), v_LD, acc_RD * decay_R[:, None], input_precision="ieee")
        m_R = new_m_R
        token_L += TILE
        block_L = tl.load(table + token_L // BLOCK_SIZE, mask=token_L < end, other=0)
    return m_R, tl.sum(l_RL, 1), acc_RD


@triton.jit
def save_states(accs, stats, state_R, is_real_R, m_R, l_R, acc_RD, HEAD_DIM: tl.constexpr):
    """Write each row's state to its place. stats holds pairs (m, l)."""
    d_D = tl.arange(0, acc_RD.shape[1])
    tl.store(stats + 2 * state_R, m_R, mask=is_real_R)
    tl.store(stats + 2 * state_R + 1, l_R, mask=is_real_R)
    mask_RD = is_real_R[:, None] & (d_D < HEAD_DIM)[None, :]
    tl.store(accs + state_R[:, None] * HEAD_DIM + d_D[None, :], acc_RD, mask=mask_RD)


@triton.jit
def fold_states(
    accs, stats, first_slot, num_slots, m_R, l_R, acc_RD, G: tl.constexpr, HEAD_DIM: tl.constexpr
):
    """Fold the saved states of `num_slots` slots into a state, always in the same order.

    Other programs of this launch may have saved them: read past this processor's own cache (.cg).
    """
    R: tl.constexpr = acc_RD.shape[0]
    BLOCK_D: tl.constexpr = acc_RD.shape[1]
    # As many slots at a time as registers have room for: each round is a trip to memory.
    P: tl.constexpr = 4096 // (R * BLOCK_D) if R * BLOCK_D <= 4096 else 1
    r_R = tl.arange(0, R)
    d_D = tl.arange(0, BLOCK_D)
    for first in range(0, num_slots, P):
        p_P = first + tl.arange(0, P)
        state_PR = (first_slot + p_P)[:, None] * G + r_R[None, :]
        mask_PR = (p_P < num_slots)[:, None] & (r_R < G)[None, :]
        m_PR = tl.load(stats + 2 * state_PR, mask=mask_PR, other=float("-inf"), cache_modifier=".cg")
        l_PR = tl.load(stats + 2 * state_PR + 1, mask=mask_PR, other=0.0, cache_modifier=".cg")
        acc_PRD = tl.load(
            accs + state_PR[:, :, None] * HEAD_DIM + d_D[None, None, :],
            mask=mask_PR[:, :, None] & (d_D < HEAD_DIM)[None, None, :],
            other=0.0,
            cache_modifier=".cg",
        )
        new_m_R = tl.maximum(m_R, tl.max(m_PR, 0))
        decay_R = tl.exp2(m_R - new_m_R)
        weight_PR = tl.exp2(m_PR - new_m_R[None, :])
        l_R = l_R * decay_R + tl.sum(weight_PR * l_PR, 0)
        acc_RD = acc_RD * decay_R[:, None] + tl.sum(weight_PR[:, :, None] * acc_PRD, 0)
        m_R = new_m_R
    return m_R, l_R, acc_RD


@triton.jit
def write_out(out, sinks, m_R, l_R, acc_RD, G: tl.constexpr, HEAD_DIM: tl.constexpr):
    """The attention that a state stands for, to the G heads from `out` on."""
    r_R = tl.arange(0, acc_RD.shape[0])
    d_D = tl.arange(0, acc_RD.shape[1])
    is_real_R = r_R < G
    if sinks is not None:
        sink_R = tl.load(sinks + r_R, mask=is_real_R, other=0.0).to(tl.float32) * LOG2_E
        new_m_R = tl.maximum(m_R, sink_R)
        decay_R = tl.exp2(m_R - new_m_R)
        l_R = l_R * decay_R + tl.exp2(sink_R - new_m_R)
        acc_RD *= decay_R[:, None]
    out_RD = (acc_RD / l_R[:, None]).to(out.dtype.element_ty)
    mask_RD = is_real_R[:, None] & (d_D < HEAD_DIM)[None, :]
    tl.store(out + r_R[:, None] * HEAD_DIM + d_D[None, :], out_RD, mask=mask_RD)
