"""A step's bookkeeping, one launch each. Shape letters as in octavo/ops/step.py.

All three are latency: a chain of two to four dependent reads after the launch, 2 to 4 us on an H100
whatever the batch; write_segments moves 8 bytes a value, so 130,000 tokens take about 3 us.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from octavo.ops.step import SEQUENCES, SINGLES, TOKENS

VALUES = 1024
"""A program of write_segments copies so many at a time."""
MOST_PARTS = 64
"""Programs of write_segments that share a segment, at most."""
PLACES = 128
"""Tokens of a program in gather_step and append_tokens: one a thread, as reads wait for reads."""


def write_segments(
    memory_RW: torch.Tensor, payload_N: torch.Tensor, segments_G4: torch.Tensor, longest: int
) -> None:
    """Copy pieces of the payload to row memory."""
    parts = min(max(triton.cdiv(longest, VALUES), 1), MOST_PARTS)
    _write_segments_kernel[(len(segments_G4), parts)](
        memory_RW, payload_N, segments_G4, memory_RW.stride(0), VALUES=VALUES
    )


def append_tokens(
    memory_RW: torch.Tensor, rows_R: torch.Tensor, columns_R: torch.Tensor, token_ids_R: torch.Tensor
) -> None:
    """One value for each row."""
    num_rows = len(rows_R)
    _append_tokens_kernel[(triton.cdiv(num_rows, PLACES),)](
        memory_RW, rows_R, columns_R, token_ids_R, num_rows, memory_RW.stride(0), PLACES=PLACES
    )


def gather_step(  # noqa: PLR0913
    memory_RW: torch.Tensor,
    rows_S: torch.Tensor,
    starts_S1: torch.Tensor,
    firsts_S: torch.Tensor,
    counts: torch.Tensor,
    table_columns: Sequence[int],
    block_size: int,
    token_ids_T: torch.Tensor,
    positions_T: torch.Tensor,
    slots_GT: torch.Tensor,
) -> None:
    """Token ids, positions and slots of a step."""
    places = len(token_ids_T)
    num_groups = len(table_columns)
    _gather_step_kernel[(triton.cdiv(places, PLACES), max(num_groups, 1))](
        memory_RW,
        rows_S,
        starts_S1,
        firsts_S,
        counts,
        token_ids_T,
        positions_T,
        slots_GT,
        places,
        memory_RW.stride(0),
        slots_GT.stride(0),
        TABLE_COLUMNS=tuple(table_columns) or (0,),
        NUM_GROUPS=num_groups,
        BLOCK_SIZE=block_size,
        PLACES=PLACES,
        SINGLES=SINGLES,
        TOKENS=TOKENS,
        SEQUENCES=SEQUENCES,
    )


@triton.jit
def _write_segments_kernel(memory_ptr, payload_ptr, segments_ptr, memory_stride, VALUES: tl.constexpr):
    segment_ptr = segments_ptr + tl.program_id(0) * 4
    row = tl.load(segment_ptr).to(tl.int64)
    column = tl.load(segment_ptr + 1)
    count = tl.load(segment_ptr + 2)
    offset = tl.load(segment_ptr + 3)
    target_ptr = memory_ptr + row * memory_stride + column
    start = tl.program_id(1) * VALUES
    while start < count:
        places = start + tl.arange(0, VALUES)
        inside = places < count
        tl.store(target_ptr + places, tl.load(payload_ptr + offset + places, mask=inside), mask=inside)
        start += tl.num_programs(1) * VALUES


@triton.jit(do_not_specialize=["num_rows"])
def _append_tokens_kernel(
    memory_ptr, rows_ptr, columns_ptr, token_ids_ptr, num_rows, memory_stride, PLACES: tl.constexpr
):
    places = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    inside = places < num_rows
    rows = tl.load(rows_ptr + places, mask=inside, other=-1).to(tl.int64)
    columns = tl.load(columns_ptr + places, mask=inside, other=0)
    token_ids = tl.load(token_ids_ptr + places, mask=inside, other=0)
    tl.store(memory_ptr + rows * memory_stride + columns, token_ids, mask=rows >= 0)


@triton.jit(do_not_specialize=["places_end"])
def _gather_step_kernel(  # noqa: PLR0913
    memory_ptr,
    rows_ptr,
    starts_ptr,
    firsts_ptr,
    counts_ptr,
    token_ids_ptr,
    positions_ptr,
    slots_ptr,
    places_end,
    memory_stride,
    slots_stride,
    TABLE_COLUMNS: tl.constexpr,
    NUM_GROUPS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    PLACES: tl.constexpr,
    SINGLES: tl.constexpr,
    TOKENS: tl.constexpr,
    SEQUENCES: tl.constexpr,
):
    num_singles = tl.load(counts_ptr + SINGLES)
    num_tokens = tl.load(counts_ptr + TOKENS)
    num_seqs = tl.load(counts_ptr + SEQUENCES)
    tokens = tl.program_id(0) * PLACES + tl.arange(0, PLACES)
    is_place = tokens < places_end
    is_token = is_place & (tokens < num_tokens)

    # The last sequence that starts at or before each token. Singles need no search: they stand at their
    # own token, so a step of singles only skips the loop.
    sequences = tl.minimum(tokens, num_singles)
    remaining = num_seqs - num_singles
    while remaining > 1:
        half = remaining // 2
        middles = sequences + half
        is_searched = is_token & (tokens >= num_singles)
        starts = tl.load(starts_ptr + middles, mask=is_searched, other=0)
        sequences = tl.where(is_searched & (starts <= tokens), middles, sequences)
        remaining -= half

    firsts = tl.load(firsts_ptr + sequences, mask=is_token, other=0)
    starts = tl.load(starts_ptr + sequences, mask=is_token, other=0)
    rows = tl.load(rows_ptr + sequences, mask=is_token, other=0).to(tl.int64)
    positions = tl.where(is_token, firsts + tokens - starts, 0)
    row_ptrs = memory_ptr + rows * memory_stride
    group = tl.program_id(1)
    if NUM_GROUPS > 0:
        column = TABLE_COLUMNS[0]
        for i in tl.static_range(1, NUM_GROUPS):
            column = tl.where(group == i, TABLE_COLUMNS[i], column)
        blocks = tl.load(row_ptrs + column + positions // BLOCK_SIZE, mask=is_token, other=0)
        slots = tl.where(is_token, blocks * BLOCK_SIZE + positions % BLOCK_SIZE, -1)
        tl.store(slots_ptr + group * slots_stride + tokens, slots, mask=is_place)
    if group == 0:
        token_ids = tl.load(row_ptrs + positions, mask=is_token, other=0)
        tl.store(token_ids_ptr + tokens, token_ids, mask=is_place)
        tl.store(positions_ptr + tokens, positions, mask=is_place)
