"""The convolution of a step's tokens, then the rows' windows. Shape letters as in octavo/ops/causal_conv.py.

Two launches, because a window is read by programs of several tokens before it may be written. Both are
bandwidth: 4 bytes a value in a 2-byte type and what of the windows is touched; T = 8192, C = 4352 moves
143 MB, 43 us on an H100. A few tokens are two launches of latency.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.step import SEQUENCES, SINGLES
from octavo.ops.step_rows import StepRows

TOKENS_EACH, CHANNELS_EACH = 16, 128
"""Of a program of the convolution."""
WINDOW_CHANNELS = 256
"""Of a program that writes a window."""


def causal_conv(
    x_TC: torch.Tensor,
    weight_CW: torch.Tensor,
    bias_C: torch.Tensor | None,
    windows_RKC: torch.Tensor,
    step: StepRows,
) -> torch.Tensor:
    """[T, C] in x's type."""
    num_tokens, channels = x_TC.shape
    assert x_TC.stride(1) == 1 and weight_CW.is_contiguous() and windows_RKC.is_contiguous()
    y_TC = x_TC.new_empty(num_tokens, channels)
    _conv_kernel[(triton.cdiv(num_tokens, TOKENS_EACH), triton.cdiv(channels, CHANNELS_EACH))](
        x_TC,
        weight_CW,
        bias_C,
        windows_RKC,
        y_TC,
        step.rows_S,
        step.starts_S1,
        step.lengths_S,
        step.counts,
        x_TC.stride(0),
        CHANNELS=channels,
        TAPS=weight_CW.shape[1],
        TOKENS_EACH=TOKENS_EACH,
        CHANNELS_EACH=CHANNELS_EACH,
        SINGLES=SINGLES,
        SEQUENCES=SEQUENCES,
    )
    _window_kernel[(step.num_seqs, triton.cdiv(channels, WINDOW_CHANNELS))](
        x_TC,
        windows_RKC,
        step.rows_S,
        step.starts_S1,
        step.lengths_S,
        step.counts,
        x_TC.stride(0),
        CHANNELS=channels,
        KEPT=windows_RKC.shape[1],
        CHANNELS_EACH=WINDOW_CHANNELS,
        SEQUENCES=SEQUENCES,
    )
    return y_TC


@triton.jit
def _conv_kernel(  # noqa: PLR0913
    x_ptr,
    weight_ptr,
    bias_ptr,  # None: nothing is added
    windows_ptr,
    y_ptr,
    rows_ptr,
    starts_ptr,
    lengths_ptr,
    counts_ptr,
    x_stride,
    CHANNELS: tl.constexpr,
    TAPS: tl.constexpr,
    TOKENS_EACH: tl.constexpr,
    CHANNELS_EACH: tl.constexpr,
    SINGLES: tl.constexpr,
    SEQUENCES: tl.constexpr,
):
    num_singles = tl.load(counts_ptr + SINGLES)
    num_seqs = tl.load(counts_ptr + SEQUENCES)
    tokens = tl.program_id(0) * TOKENS_EACH + tl.arange(0, TOKENS_EACH)
    is_token = tokens < tl.load(starts_ptr + num_seqs)

    # The last sequence that starts at or before each token; singles stand at their own token.
    sequences = tl.minimum(tokens, num_singles)
    remaining = num_seqs - num_singles
    while remaining > 1:
        half = remaining // 2
        middles = sequences + half
        is_searched = is_token & (tokens >= num_singles)
        starts = tl.load(starts_ptr + middles, mask=is_searched, other=0)
        sequences = tl.where(is_searched & (starts <= tokens), middles, sequences)
        remaining -= half

    rows = tl.load(rows_ptr + sequences, mask=is_token, other=0).to(tl.int64)
    starts = tl.load(starts_ptr + sequences, mask=is_token, other=0)
    counts = tl.load(starts_ptr + sequences + 1, mask=is_token, other=0) - starts
    has_past = tl.load(lengths_ptr + sequences, mask=is_token, other=0) > counts
    behind = tokens - starts  # tokens of the sequence in this step before each

    channels = tl.program_id(1) * CHANNELS_EACH + tl.arange(0, CHANNELS_EACH)
    is_channel = channels < CHANNELS
    inside = is_token[:, None] & is_channel[None, :]
    total = tl.zeros([TOKENS_EACH, CHANNELS_EACH], dtype=tl.float32)
    if bias_ptr is not None:
        total += tl.load(bias_ptr + channels, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(TAPS):
        back = TAPS - 1 - tap
        weight = tl.load(weight_ptr + channels * TAPS + tap, mask=is_channel, other=0.0).to(tl.float32)
        is_here = (behind >= back)[:, None] & inside
        here = tl.load(
            x_ptr + (tokens - back).to(tl.int64)[:, None] * x_stride + channels[None, :],
            mask=is_here,
            other=0.0,
        )
        places = rows * (TAPS - 1) + behind + tap  # in the window, for tokens before the step's
        is_kept = ((behind < back) & has_past)[:, None] & inside
        kept = tl.load(windows_ptr + places[:, None] * CHANNELS + channels[None, :], mask=is_kept, other=0.0)
        total += (here.to(tl.float32) + kept.to(tl.float32)) * weight[None, :]
    y = total / (1.0 + tl.exp(-total))
    tl.store(y_ptr + tokens.to(tl.int64)[:, None] * CHANNELS + channels[None, :], y, mask=inside)


@triton.jit
def _window_kernel(  # noqa: PLR0913
    x_ptr,
    windows_ptr,
    rows_ptr,
    starts_ptr,
    lengths_ptr,
    counts_ptr,
    x_stride,
    CHANNELS: tl.constexpr,
    KEPT: tl.constexpr,
    CHANNELS_EACH: tl.constexpr,
    SEQUENCES: tl.constexpr,
):
    sequence = tl.program_id(0)
    if sequence >= tl.load(counts_ptr + SEQUENCES):
        return
    row = tl.load(rows_ptr + sequence).to(tl.int64)
    start = tl.load(starts_ptr + sequence)
    end = tl.load(starts_ptr + sequence + 1)
    num_before = tl.load(lengths_ptr + sequence) - (end - start)
    channels = tl.program_id(1) * CHANNELS_EACH + tl.arange(0, CHANNELS_EACH)
    is_channel = channels < CHANNELS
    window_ptr = windows_ptr + row * KEPT * CHANNELS + channels
    # In order: what a place takes comes from places behind it, which are not written yet.
    for place in tl.static_range(KEPT):
        token = end - KEPT + place
        # Each place comes from this step, from the window, or is zero before the sequence's first token.
        ends_here = tl.where(token >= start, CHANNELS, 0)
        here = tl.load(x_ptr + token.to(tl.int64) * x_stride + channels, mask=channels < ends_here, other=0.0)
        ends_kept = tl.where((token < start) & (num_before > 0), CHANNELS, 0)
        kept = tl.load(window_ptr + (KEPT + token - start) * CHANNELS, mask=channels < ends_kept, other=0.0)
        tl.store(window_ptr + place * CHANNELS, here + kept, mask=is_channel)
