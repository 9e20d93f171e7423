"""The gated delta rule on a GPU. Shape letters as in octavo/ops/gated_delta.py.

Cut as ssd.py is: a program owns some values of one head's state, of one sequence, and nothing is passed
between programs. By token it is bandwidth: 8 bytes a number of state, 256 rows of 32 x 128 x 128 move
1.07 GB, 320 us on an H100. In chunks the tokens' updates depend on each other: what each tells the state is
the solution of a triangular system, found row by row (a sum of powers would cancel badly where keys repeat).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.gated_delta import TINY, DeltaWeights
from octavo.ops.step import SEQUENCES, SINGLES
from octavo.ops.step_rows import StepRows
from octavo.ops.triton.softplus import softplus

CHUNK = 32
"""Tokens of a triangular system, which takes one pass over it for each."""
LEAST = 16
"""A matrix product's sides have at least so many."""
VALUES_EACH = 32
"""Values of a head that a program owns, at most."""


def gated_delta(
    q_TJ: torch.Tensor,
    k_TJ: torch.Tensor,
    v_TI: torch.Tensor,
    b_TH: torch.Tensor,
    a_TH: torch.Tensor,
    weights: DeltaWeights,
    states_RHVK: torch.Tensor,
    step: StepRows,
    is_by_token: bool,
) -> torch.Tensor:
    """[T, I] in v's type."""
    num_tokens = len(v_TI)
    heads, width, size = states_RHVK.shape[1:]
    assert states_RHVK.is_contiguous() and q_TJ.stride(1) == k_TJ.stride(1) == v_TI.stride(1) == 1
    assert b_TH.stride() == a_TH.stride(), "both come from one product"
    y_TI = v_TI.new_empty(num_tokens, heads * width)
    arguments = (
        *(q_TJ, k_TJ, v_TI, b_TH, a_TH, *weights, states_RHVK, y_TI),
        *(step.rows_S, step.starts_S1, step.lengths_S, step.counts),
        *(q_TJ.stride(0), k_TJ.stride(0), v_TI.stride(0), b_TH.stride(0), b_TH.stride(1)),
        size**-0.5,
    )
    values = min(triton.next_power_of_2(width), VALUES_EACH)
    shape = {
        "HEADS": heads,
        "GROUP_HEADS": heads * size // k_TJ.shape[1],
        "WIDTH": width,
        "SIZE": size,
        "PADDED_SIZE": max(triton.next_power_of_2(size), LEAST),
        "TINY": TINY,
        "SINGLES": SINGLES,
        "SEQUENCES": SEQUENCES,
    }
    by_token = step.num_seqs if is_by_token else step.num_singles
    if by_token:
        _token_kernel[(by_token, heads, triton.cdiv(width, values))](
            *arguments, **shape, IS_FOR_ALL=is_by_token, VALUES=values, num_warps=4
        )
    if step.has_chunks and not is_by_token:
        values = max(values, LEAST)
        # A sequence that is no single has two tokens at least.
        num_chunked = min(step.num_seqs, max(num_tokens // 2, 1))
        _chunk_kernel[(triton.cdiv(width, values), heads, num_chunked)](
            *arguments, **shape, VALUES=values, CHUNK=CHUNK, num_warps=8, num_stages=2
        )
    return y_TI


@triton.jit
def _token_kernel(  # noqa: PLR0913
    q_ptr,
    k_ptr,
    v_ptr,
    b_ptr,
    a_ptr,
    log_decay_ptr,
    bias_ptr,
    states_ptr,
    y_ptr,
    rows_ptr,
    starts_ptr,
    lengths_ptr,
    counts_ptr,
    q_stride,
    k_stride,
    v_stride,
    b_stride,
    b_head_stride,
    scale,
    HEADS: tl.constexpr,
    GROUP_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    TINY: tl.constexpr,
    SINGLES: tl.constexpr,
    SEQUENCES: tl.constexpr,
    IS_FOR_ALL: tl.constexpr,
    VALUES: tl.constexpr,
):
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    if sequence >= tl.load(counts_ptr + (SEQUENCES if IS_FOR_ALL else SINGLES)):
        return
    row = tl.load(rows_ptr + sequence).to(tl.int64)
    start = tl.load(starts_ptr + sequence)
    end = tl.load(starts_ptr + sequence + 1)
    num_before = tl.load(lengths_ptr + sequence) - (end - start)
    num_kept = tl.minimum(num_before, 1) * SIZE  # nothing, before a sequence's first token
    values = tl.program_id(2) * VALUES + tl.arange(0, VALUES)
    numbers = tl.arange(0, PADDED_SIZE)
    is_value, is_number = values < WIDTH, numbers < SIZE
    inside = is_value[:, None] & is_number[None, :]
    state_ptrs = (
        states_ptr + (row * HEADS + head) * (WIDTH * SIZE) + values[:, None] * SIZE + numbers[None, :]
    )
    state = tl.load(state_ptrs, mask=inside & (numbers[None, :] < num_kept), other=0.0)
    rate = -tl.exp(tl.load(log_decay_ptr + head))
    bias = tl.load(bias_ptr + head)
    columns = head // GROUP_HEADS * SIZE + numbers
    for token in range(end - start):
        at = start.to(tl.int64) + token
        a = tl.load(a_ptr + at * b_stride + head * b_head_stride).to(tl.float32)
        b = tl.load(b_ptr + at * b_stride + head * b_head_stride).to(tl.float32)
        q = tl.load(q_ptr + at * q_stride + columns, mask=is_number, other=0.0).to(tl.float32)
        k = tl.load(k_ptr + at * k_stride + columns, mask=is_number, other=0.0).to(tl.float32)
        v = tl.load(v_ptr + at * v_stride + head * WIDTH + values, mask=is_value, other=0.0).to(tl.float32)
        q *= tl.rsqrt(tl.sum(q * q, 0) + TINY) * scale
        k *= tl.rsqrt(tl.sum(k * k, 0) + TINY)
        state *= tl.exp(rate * softplus(a + bias))
        told = (v - tl.sum(state * k[None, :], 1)) / (1.0 + tl.exp(-b))
        state += told[:, None] * k[None, :]
        y = tl.sum(state * q[None, :], 1)
        tl.store(y_ptr + at * (HEADS * WIDTH) + head * WIDTH + values, y, mask=is_value)
    tl.store(state_ptrs, state, mask=inside)


@triton.jit
def _chunk_kernel(  # noqa: PLR0913, PLR0915
    q_ptr,
    k_ptr,
    v_ptr,
    b_ptr,
    a_ptr,
    log_decay_ptr,
    bias_ptr,
    states_ptr,
    y_ptr,
    rows_ptr,
    starts_ptr,
    lengths_ptr,
    counts_ptr,
    q_stride,
    k_stride,
    v_stride,
    b_stride,
    b_head_stride,
    scale,
    HEADS: tl.constexpr,
    GROUP_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    TINY: tl.constexpr,
    SINGLES: tl.constexpr,
    SEQUENCES: tl.constexpr,
    VALUES: tl.constexpr,
    CHUNK: tl.constexpr,
):
    head = tl.program_id(1)
    sequence = tl.load(counts_ptr + SINGLES) + tl.program_id(2)
    if sequence >= tl.load(counts_ptr + SEQUENCES):
        return
    row = tl.load(rows_ptr + sequence).to(tl.int64)
    start = tl.load(starts_ptr + sequence)
    end = tl.load(starts_ptr + sequence + 1)
    num_before = tl.load(lengths_ptr + sequence) - (end - start)
    num_kept = tl.minimum(num_before, 1) * SIZE  # nothing, before a sequence's first token
    values = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    numbers = tl.arange(0, PADDED_SIZE)
    is_value, is_number = values < WIDTH, numbers < SIZE
    # Transposed, [numbers, values]: as the products want it.
    inside = is_number[:, None] & is_value[None, :]
    state_ptrs = (
        states_ptr + (row * HEADS + head) * (WIDTH * SIZE) + values[None, :] * SIZE + numbers[:, None]
    )
    state = tl.load(state_ptrs, mask=inside & (numbers[:, None] < num_kept), other=0.0)
    rate = -tl.exp(tl.load(log_decay_ptr + head))
    bias = tl.load(bias_ptr + head)
    columns = head // GROUP_HEADS * SIZE + numbers
    dtype = v_ptr.dtype.element_ty
    places = tl.arange(0, CHUNK)
    is_not_later = places[:, None] >= places[None, :]
    is_earlier = places[:, None] > places[None, :]
    for first in range(start, end, CHUNK):
        is_token = first + places < end
        at = (first + places).to(tl.int64)
        a = tl.load(a_ptr + at * b_stride + head * b_head_stride, mask=is_token, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + at * b_stride + head * b_head_stride, mask=is_token, other=0.0).to(tl.float32)
        is_state = is_token[:, None] & is_number[None, :]
        q = tl.load(q_ptr + at[:, None] * q_stride + columns[None, :], mask=is_state, other=0.0).to(
            tl.float32
        )
        k = tl.load(k_ptr + at[:, None] * k_stride + columns[None, :], mask=is_state, other=0.0).to(
            tl.float32
        )
        is_inner = is_token[:, None] & is_value[None, :]
        v_ptrs = v_ptr + at[:, None] * v_stride + head * WIDTH + values[None, :]
        v = tl.load(v_ptrs, mask=is_inner, other=0.0).to(tl.float32)
        q = (q * (tl.rsqrt(tl.sum(q * q, 1) + TINY) * scale)[:, None]).to(dtype)
        k = (k * tl.rsqrt(tl.sum(k * k, 1) + TINY)[:, None]).to(dtype)
        # Tokens past the end change nothing: no decay, nothing told.
        decays = tl.where(is_token, rate * softplus(a + bias), 0.0)
        beta = tl.where(is_token, 1.0 / (1.0 + tl.exp(-b)), 0.0)
        decay = tl.cumsum(decays, 0)
        whole_decay = tl.sum(decays, 0)
        since = tl.exp(decay)[:, None]
        between = tl.exp(tl.where(is_not_later, decay[:, None] - decay[None, :], 0.0))

        overlaps = tl.dot(k, tl.trans(k), input_precision="ieee")
        system = tl.where(is_earlier, beta[:, None] * overlaps * between, 0.0)
        narrow_state = state.to(dtype)
        told = beta[:, None] * (v - since * tl.dot(k, narrow_state, input_precision="ieee"))
        for place in range(1, CHUNK):
            is_row = places == place
            coefficients = tl.sum(tl.where(is_row[:, None], system, 0.0), 0)
            known = tl.sum(coefficients[:, None] * told, 0)
            told = tl.where(is_row[:, None], told - known[None, :], told)

        scores = tl.where(is_not_later, tl.dot(q, tl.trans(k), input_precision="ieee") * between, 0.0)
        y = since * tl.dot(q, narrow_state, input_precision="ieee")
        y += tl.dot(scores.to(dtype), told.to(dtype), input_precision="ieee")
        y_ptrs = y_ptr + at[:, None] * (HEADS * WIDTH) + head * WIDTH + values[None, :]
        tl.store(y_ptrs, y, mask=is_inner)
        added = (told * tl.exp(whole_decay - decay)[:, None]).to(dtype)
        state = state * tl.exp(whole_decay) + tl.dot(tl.trans(k), added, input_precision="ieee")
    tl.store(state_ptrs, state, mask=inside)
