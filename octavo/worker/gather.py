"""From rows and a SchedulerOutput to a StepBatch. Hot path: no loop over tokens, no device sync.

T tokens, S sequences, R rows that sample, N blocks.
"""

from __future__ import annotations

from itertools import accumulate

import torch

from octavo.attention.step_view import StepView
from octavo.base.integers import ceil_div
from octavo.messages.step import SchedulerOutput
from octavo.worker.rows import TokenRows
from octavo.worker.step_batch import StepBatch


def gather_batch(rows: TokenRows, step: SchedulerOutput) -> StepBatch:
    """The tensors of `step`, whose changes `rows` has taken in."""
    order = _order(rows, step)
    row_list = [step.rows[i] for i in order]
    num_tokens = [step.num_tokens[i] for i in order]
    first_positions = [rows.num_computed[row] for row in row_list]
    query_starts = [0, *accumulate(num_tokens)]
    ends = [first + count for first, count in zip(first_positions, num_tokens, strict=True)]
    sampling = [i for i, row in enumerate(row_list) if ends[i] == rows.num_known[row]]
    assert all(end <= rows.num_known[row] for end, row in zip(ends, row_list, strict=True)), (
        "a step computes known tokens only"
    )
    # One copy to the device carries everything that the host decided.
    host = torch.tensor([row_list, query_starts[:-1], num_tokens], dtype=torch.int64)
    rows_S, starts_S, counts_S = host.to(rows.device, non_blocking=True)
    positions_T, rows_T = _positions(rows, rows_S, starts_S, counts_S, query_starts[-1])
    sample_rows_R, sample_tokens_R = _sampling(rows_S, starts_S + counts_S - 1, sampling, query_starts[-1])
    return StepBatch(
        rows=row_list,
        num_tokens=num_tokens,
        first_positions=first_positions,
        query_starts=query_starts,
        rows_S=rows_S,
        num_tokens_S=counts_S,
        token_ids_T=rows.tokens[rows_T, positions_T],
        positions_T=positions_T,
        views=[
            _view(table, rows.block_size, rows_S, rows_T, positions_T, query_starts, ends)
            for table in rows.block_tables
        ],
        sample_rows=[row_list[i] for i in sampling],
        sample_rows_R=sample_rows_R,
        sample_tokens_R=sample_tokens_R,
    )


def _order(rows: TokenRows, step: SchedulerOutput) -> list[int]:
    """Single tokens first, shortest sequence first; then the chunks (see StepView)."""
    computed, counts = rows.num_computed, step.num_tokens
    return sorted(range(len(counts)), key=lambda i: (counts[i] > 1, computed[step.rows[i]] + counts[i]))


def _positions(
    rows: TokenRows, rows_S: torch.Tensor, starts_S: torch.Tensor, counts_S: torch.Tensor, total: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Position and row of every token of the step."""
    first_S = rows.computed[rows_S]
    if total == len(rows_S):
        return first_S, rows_S
    sequence_T = torch.arange(len(rows_S), device=rows.device).repeat_interleave(counts_S, output_size=total)
    within_T = torch.arange(total, device=rows.device) - starts_S[sequence_T]
    return first_S[sequence_T] + within_T, rows_S[sequence_T]


def _view(
    table: torch.Tensor,
    block_size: int,
    rows_S: torch.Tensor,
    rows_T: torch.Tensor,
    positions_T: torch.Tensor,
    query_starts: list[int],
    ends: list[int],
) -> StepView:
    blocks_T = table[rows_T, positions_T // block_size]
    return StepView(
        query_starts=query_starts,
        sequence_lengths=ends,
        positions_T=positions_T,
        slots_T=blocks_T * block_size + positions_T % block_size,
        block_tables_SN=table[rows_S, : ceil_div(max(ends), block_size)],
    )


def _sampling(
    rows_S: torch.Tensor, last_tokens_S: torch.Tensor, sampling: list[int], total: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows that sample, and where their last tokens are unless that is everywhere."""
    if len(sampling) == total:
        return rows_S, None
    sampling_R = torch.tensor(sampling, dtype=torch.int64).to(rows_S.device, non_blocking=True)
    return rows_S[sampling_R], last_tokens_S[sampling_R]
