"""Mamba-2's recurrence on a GPU. Shape letters as in octavo/ops/ssd.py.

Each program owns one head's state, or a part of its values, of one sequence, from the first of the step's
tokens to the last: the state stays in registers and nothing is passed between programs. Two kernels. One
goes token by token: for single tokens, where reading and writing the state is all there is (8 bytes a number
of it: 256 rows of 48 x 64 x 128 move 805 MB, 240 us on an H100), and wherever sums must be in that order.
The other takes CHUNK tokens at a time as matrix products, which is the paper's block decomposition without
the pass between chunks: a prompt keeps heads * width / 32 programs busy, enough for a GPU from 64 heads of
64 on, so the longer way over chunks in parallel would only help smaller models with a single prompt.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.ssd import SSDWeights
from octavo.ops.step import SEQUENCES, SINGLES
from octavo.ops.step_rows import StepRows
from octavo.ops.triton.softplus import softplus

CHUNK, SHORT_CHUNK = 64, 32
"""Tokens of a matrix product; short ones where a token's B or C is wider than WIDE bytes, for the sake of
GPUs with little shared memory."""
WIDE = 256
LEAST = 16
"""A matrix product's sides have at least so many."""
VALUES_EACH = 32
"""Values of a head that a program of the chunk kernel owns, at most."""


def ssd(
    x_TI: torch.Tensor,
    b_TJ: torch.Tensor,
    c_TJ: torch.Tensor,
    dt_TH: torch.Tensor,
    weights: SSDWeights,
    states_RHPN: torch.Tensor,
    step: StepRows,
    is_by_token: bool,
) -> torch.Tensor:
    """[T, I] in x's type."""
    num_tokens = len(x_TI)
    heads, width, size = states_RHPN.shape[1:]
    assert states_RHPN.is_contiguous() and x_TI.stride(1) == b_TJ.stride(1) == c_TJ.stride(1) == 1
    y_TI = x_TI.new_empty(num_tokens, heads * width)
    tensors = (x_TI, b_TJ, c_TJ, dt_TH, *weights[:3], states_RHPN, y_TI)
    places = (step.rows_S, step.starts_S1, step.lengths_S, step.counts)
    strides = (x_TI.stride(0), b_TJ.stride(0), c_TJ.stride(0), dt_TH.stride(0), dt_TH.stride(1))
    shape = {
        "HEADS": heads,
        "GROUP_HEADS": heads * size // b_TJ.shape[1],
        "WIDTH": width,
        "SIZE": size,
        "PADDED_SIZE": max(triton.next_power_of_2(size), LEAST),
        "SINGLES": SINGLES,
        "SEQUENCES": SEQUENCES,
    }
    by_token = step.num_seqs if is_by_token else step.num_singles
    padded_width = triton.next_power_of_2(width)
    if by_token:
        _token_kernel[(by_token, heads)](
            *tensors,
            *places,
            *strides,
            *weights.dt_limits,
            **shape,
            IS_FOR_ALL=is_by_token,
            PADDED_WIDTH=padded_width,
            num_warps=4 if padded_width * size <= 8192 else 8,
        )
    if step.has_chunks and not is_by_token:
        values = max(min(padded_width, VALUES_EACH), LEAST)
        # A sequence that is no single has two tokens at least.
        num_chunked = min(step.num_seqs, max(num_tokens // 2, 1))
        _chunk_kernel[(triton.cdiv(width, values), heads, num_chunked)](
            *tensors,
            *places,
            *strides,
            *weights.dt_limits,
            **shape,
            VALUES=values,
            CHUNK=CHUNK if shape["PADDED_SIZE"] * b_TJ.element_size() <= WIDE else SHORT_CHUNK,
            num_warps=4 if shape["PADDED_SIZE"] <= 128 else 8,
            num_stages=2,
        )
    return y_TI


@triton.jit
def _token_kernel(  # noqa: PLR0913
    x_ptr,
    b_ptr,
    c_ptr,
    dt_ptr,
    log_decay_ptr,
    skip_ptr,
    dt_bias_ptr,
    states_ptr,
    y_ptr,
    rows_ptr,
    starts_ptr,
    lengths_ptr,
    counts_ptr,
    x_stride,
    b_stride,
    c_stride,
    dt_stride,
    dt_head_stride,
    dt_least,
    dt_most,
    HEADS: tl.constexpr,
    GROUP_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
    SINGLES: tl.constexpr,
    SEQUENCES: tl.constexpr,
    IS_FOR_ALL: tl.constexpr,
    PADDED_WIDTH: tl.constexpr,
):
    sequence = tl.program_id(0)
    head = tl.program_id(1)
    if sequence >= tl.load(counts_ptr + (SEQUENCES if IS_FOR_ALL else SINGLES)):
        return
    row = tl.load(rows_ptr + sequence).to(tl.int64)
    start = tl.load(starts_ptr + sequence)
    end = tl.load(starts_ptr + sequence + 1)
    num_before = tl.load(lengths_ptr + sequence) - (end - start)
    values = tl.arange(0, PADDED_WIDTH)
    numbers = tl.arange(0, PADDED_SIZE)
    is_value, is_number = values < WIDTH, numbers < SIZE
    inside = is_value[:, None] & is_number[None, :]
    state_ptrs = (
        states_ptr + (row * HEADS + head) * (WIDTH * SIZE) + values[:, None] * SIZE + numbers[None, :]
    )
    num_kept = tl.minimum(num_before, 1) * SIZE  # nothing, before a sequence's first token
    state = tl.load(state_ptrs, mask=inside & (numbers[None, :] < num_kept), other=0.0)
    rate = -tl.exp(tl.load(log_decay_ptr + head))
    skip = tl.load(skip_ptr + head)
    dt_bias = tl.load(dt_bias_ptr + head)
    group = head // GROUP_HEADS
    for token in range(end - start):
        at = start.to(tl.int64) + token
        dt = softplus(tl.load(dt_ptr + at * dt_stride + head * dt_head_stride).to(tl.float32) + dt_bias)
        dt = tl.minimum(tl.maximum(dt, dt_least), dt_most)
        x = tl.load(x_ptr + at * x_stride + head * WIDTH + values, mask=is_value, other=0.0).to(tl.float32)
        b = tl.load(b_ptr + at * b_stride + group * SIZE + numbers, mask=is_number, other=0.0).to(tl.float32)
        c = tl.load(c_ptr + at * c_stride + group * SIZE + numbers, mask=is_number, other=0.0).to(tl.float32)
        state = state * tl.exp(rate * dt) + (dt * x)[:, None] * b[None, :]
        y = tl.sum(state * c[None, :], 1) + skip * x
        tl.store(y_ptr + at * (HEADS * WIDTH) + head * WIDTH + values, y, mask=is_value)
    tl.store(state_ptrs, state, mask=inside)


@triton.jit
def _chunk_kernel(  # noqa: PLR0913
    x_ptr,
    b_ptr,
    c_ptr,
    dt_ptr,
    log_decay_ptr,
    skip_ptr,
    dt_bias_ptr,
    states_ptr,
    y_ptr,
    rows_ptr,
    starts_ptr,
    lengths_ptr,
    counts_ptr,
    x_stride,
    b_stride,
    c_stride,
    dt_stride,
    dt_head_stride,
    dt_least,
    dt_most,
    HEADS: tl.constexpr,
    GROUP_HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    PADDED_SIZE: tl.constexpr,
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
    values = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    numbers = tl.arange(0, PADDED_SIZE)
    is_value, is_number = values < WIDTH, numbers < SIZE
    inside = is_value[:, None] & is_number[None, :]
    state_ptrs = (
        states_ptr + (row * HEADS + head) * (WIDTH * SIZE) + values[:, None] * SIZE + numbers[None, :]
    )
    num_kept = tl.minimum(num_before, 1) * SIZE  # nothing, before a sequence's first token
    state = tl.load(state_ptrs, mask=inside & (numbers[None, :] < num_kept), other=0.0)
    rate = -tl.exp(tl.load(log_decay_ptr + head))
    skip = tl.load(skip_ptr + head)
    dt_bias = tl.load(dt_bias_ptr + head)
    group = head // GROUP_HEADS
    dtype = x_ptr.dtype.element_ty
    places = tl.arange(0, CHUNK)
    is_not_later = places[:, None] >= places[None, :]
    for first in range(start, end, CHUNK):
        is_token = first + places < end
        at = (first + places).to(tl.int64)
        dt = tl.load(dt_ptr + at * dt_stride + head * dt_head_stride, mask=is_token, other=0.0)
        dt = softplus(dt.to(tl.float32) + dt_bias)
        dt = tl.where(is_token, tl.minimum(tl.maximum(dt, dt_least), dt_most), 0.0)
        decay = tl.cumsum(rate * dt, 0)
        whole_decay = tl.sum(rate * dt, 0)
        x_ptrs = x_ptr + at[:, None] * x_stride + head * WIDTH + values[None, :]
        x = tl.load(x_ptrs, mask=is_token[:, None] & is_value[None, :], other=0.0)
        is_state = is_token[:, None] & is_number[None, :]
        b = tl.load(
            b_ptr + at[:, None] * b_stride + group * SIZE + numbers[None, :], mask=is_state, other=0.0
        )
        c = tl.load(
            c_ptr + at[:, None] * c_stride + group * SIZE + numbers[None, :], mask=is_state, other=0.0
        )
        scores = tl.dot(c, tl.trans(b), input_precision="ieee")
        between = tl.where(is_not_later, decay[:, None] - decay[None, :], 0.0)
        scores = tl.where(is_not_later, scores * tl.exp(between) * dt[None, :], 0.0)
        y = tl.dot(c, tl.trans(state.to(dtype)), input_precision="ieee") * tl.exp(decay)[:, None]
        y += tl.dot(scores.to(dtype), x, input_precision="ieee")
        y += skip * x.to(tl.float32)
        y_ptrs = y_ptr + at[:, None] * (HEADS * WIDTH) + head * WIDTH + values[None, :]
        tl.store(y_ptrs, y, mask=is_token[:, None] & is_value[None, :])
        added = (x.to(tl.float32) * (dt * tl.exp(whole_decay - decay))[:, None]).to(dtype)
        # The values first: with 64 numbers first, states came out wrong in 16 bits on an H100 (Triton 3.6).
        state = state * tl.exp(whole_decay) + tl.dot(tl.trans(added), b, input_precision="ieee")
    tl.store(state_ptrs, state, mask=inside)
