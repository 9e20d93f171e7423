"""A step's bookkeeping on the device: row memory takes in changes, and becomes tokens, positions and slots.

Row memory is one int32 array [R, W]: each row's tokens from column 0 on, then its block table for each KV
group. T tokens, S sequences, G KV groups; in write_segments N payload values and G segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.contract import Op

SINGLES, TOKENS, SEQUENCES = 0, 2, 4
"""Places in a step's counts (StepView.counts): sequences of one token, tokens, sequences of any kind."""


def _plain_write_segments(
    memory_RW: torch.Tensor, payload_N: torch.Tensor, segments_G4: torch.Tensor, longest: int
) -> None:
    """Copy pieces of the payload. A segment is (row, column, count, offset in the payload).

    longest: no count is larger; the host knows it, and a device needs it to know how much to start.
    """
    for row, column, count, offset in segments_G4.tolist():
        assert count <= longest, "the longest segment is the longest"
        memory_RW[row, column : column + count] = payload_N[offset : offset + count]


def _plain_append_tokens(
    memory_RW: torch.Tensor, rows_R: torch.Tensor, columns_R: torch.Tensor, token_ids_R: torch.Tensor
) -> None:
    """One value for each of these rows; a negative row is skipped."""
    is_kept_R = rows_R >= 0
    places = rows_R[is_kept_R].long(), columns_R[is_kept_R].long()
    memory_RW[places] = token_ids_R[is_kept_R].to(memory_RW.dtype)


def _plain_gather_step(  # noqa: PLR0913
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
    """What each token of a step is, where it stands, and where each group keeps its keys and values.

    Sequence s computes the tokens starts[s] to starts[s + 1] of the step, from position firsts[s] of row
    rows[s] on; the first counts[SINGLES] sequences compute one each. Nothing past the step's own sequences
    is read. Tokens past its own get id 0, position 0 and slot -1.
    table_columns: where in row memory each group's block table begins.
    """
    numbers = counts.tolist()
    num_tokens, num_seqs = numbers[TOKENS], numbers[SEQUENCES]
    tokens = torch.arange(num_tokens, dtype=starts_S1.dtype, device=starts_S1.device)
    sequences = torch.searchsorted(starts_S1[:num_seqs], tokens, right=True) - 1
    rows, positions = rows_S[sequences].long(), firsts_S[sequences] + tokens - starts_S1[sequences]
    token_ids_T[:num_tokens] = memory_RW[rows, positions.long()]
    positions_T[:num_tokens] = positions
    blocks = (positions // block_size).long()
    for column, slots_T in zip(table_columns, slots_GT, strict=True):
        slots_T[:num_tokens] = memory_RW[rows, column + blocks] * block_size + positions % block_size
    token_ids_T[num_tokens:] = 0
    positions_T[num_tokens:] = 0
    slots_GT[:, num_tokens:] = -1


def _examples_of_write_segments() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    for width, segments in (
        (3, [(0, 1, 1, 0)]),
        (40, [(2, 3, 7, 9), (0, 0, 1, 2), (2, 10, 30, 20), (1, 5, 0, 0)]),
        (4000, [(3, 100, 3500, 1), (0, 3999, 1, 0)]),
    ):
        yield (
            torch.zeros(4, width, dtype=torch.int32),
            torch.randint(1, 1000, (3600,), generator=generator).int(),
            torch.tensor(segments, dtype=torch.int32),
            max(count for _, _, count, _ in segments),
        )


def _examples_of_append_tokens() -> Iterator[tuple[Any, ...]]:
    for rows, dtype in (([2], torch.int64), ([3, -1, 0, 1], torch.int32), ([*range(150)], torch.int64)):
        memory_RW = torch.zeros(200, 9, dtype=torch.int32)
        rows_R = torch.tensor(rows, dtype=torch.int32)
        yield memory_RW, rows_R, (rows_R + 5) % 9, torch.arange(1, len(rows) + 1).to(dtype)


def _examples_of_gather_step() -> Iterator[tuple[Any, ...]]:
    """Singles only, chunks only, both, sequences without a token; padded and not; one group and two."""
    generator = torch.Generator().manual_seed(0)
    for num_tokens, places, padding, num_groups, block_size in (
        ([1], 1, 0, 1, 16),
        ([1, 1, 1], 8, 2, 2, 4),
        ([5, 3], 2, 1, 1, 1),
        ([1, 1, 0, 3, 0, 140, 2], 300, 3, 2, 16),
        ([2, 0], 2, 0, 2, 2),
    ):
        num_seqs, max_len = len(num_tokens), 200
        max_blocks = -(-max_len // block_size)
        table_columns = [max_len + group * max_blocks for group in range(num_groups)]
        places = max(places, sum(num_tokens))
        starts = torch.tensor([0, *num_tokens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        garbage = torch.full((padding,), 1 << 30, dtype=torch.int32)
        rows = torch.randperm(num_seqs + 2, generator=generator)[:num_seqs].int()
        firsts = torch.randint(0, 50, (num_seqs,), generator=generator).int()
        num_singles = next((i for i, count in enumerate(num_tokens) if count != 1), num_seqs)
        yield (
            torch.randint(
                0, 1000, (num_seqs + 2, max_len + num_groups * max_blocks), generator=generator
            ).int(),
            torch.cat((rows, garbage)),
            torch.cat((starts, garbage)),
            torch.cat((firsts, garbage)),
            torch.tensor([num_singles, -7, sum(num_tokens), -7, num_seqs, -7], dtype=torch.int32),
            table_columns,
            block_size,
            torch.full((places,), -9, dtype=torch.int32),
            torch.full((places,), -9, dtype=torch.int32),
            torch.full((num_groups, places + 1), -9, dtype=torch.int32)[:, :places],
        )


write_segments = Op(
    name="write_segments",
    plain=_plain_write_segments,
    providers=LazyTable("write_segments provider", {"cuda": "octavo.ops.triton.step:write_segments"}),
    examples=_examples_of_write_segments,
    tolerance=0.0,
    writes=(0,),
)
append_tokens = Op(
    name="append_tokens",
    plain=_plain_append_tokens,
    providers=LazyTable(
        "append_tokens provider",
        {"cpu": "octavo.ops.cpu.host:append_tokens", "cuda": "octavo.ops.triton.step:append_tokens"},
    ),
    examples=_examples_of_append_tokens,
    tolerance=0.0,
    writes=(0,),
)
gather_step = Op(
    name="gather_step",
    plain=_plain_gather_step,
    providers=LazyTable(
        "gather_step provider",
        {"cpu": "octavo.ops.cpu.host:gather_step", "cuda": "octavo.ops.triton.step:gather_step"},
    ),
    examples=_examples_of_gather_step,
    tolerance=0.0,
    writes=(7, 8, 9),
)
