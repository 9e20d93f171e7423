"""Rows and a step become tensors: order, positions, slots, who samples."""

from __future__ import annotations

import pytest
import torch

from octavo.messages.params import SamplingParams
from octavo.messages.step import NewRow, SchedulerOutput
from octavo.worker.gather import gather_batch
from octavo.worker.rows import TokenRows


def new_row(row: int, token_ids: list[int], block_ids: list[int], computed: int = 0) -> NewRow:
    return NewRow(
        row=row,
        request_id=str(row),
        token_ids=token_ids,
        num_prompt_tokens=len(token_ids),
        num_computed_tokens=computed,
        block_ids=[block_ids, [block + 50 for block in block_ids]],
        params=SamplingParams(),
        random_key=0,
        eos_token_ids=[],
    )


@pytest.fixture
def rows() -> TokenRows:
    return TokenRows(num_rows=4, max_model_len=20, block_size=4, num_groups=2, device=torch.device("cpu"))


def test_a_mixed_step(rows: TokenRows) -> None:
    step = SchedulerOutput(
        step=0,
        ended_rows=[],
        new_rows=[
            new_row(0, [10, 11, 12, 13, 14, 15], [7, 3], computed=1),
            new_row(1, [20, 21, 22, 23, 24, 25, 26], [5], computed=6),
            new_row(3, [30, 31, 32], [9], computed=2),
        ],
        rows=[0, 1, 3],
        num_tokens=[4, 1, 1],
        new_blocks=[[[], []], [[6], [2]], []],
    )
    rows.apply(step)
    batch = gather_batch(rows, step)
    # Single tokens first, the shorter sequence before the longer; then the chunk.
    assert (batch.rows, batch.num_tokens, batch.first_positions) == ([3, 1, 0], [1, 1, 4], [2, 6, 1])
    assert batch.query_starts == [0, 1, 2, 6]
    assert batch.token_ids_T.tolist() == [32, 26, 11, 12, 13, 14]
    assert batch.positions_T.tolist() == [2, 6, 1, 2, 3, 4]
    assert batch.views[0].slots_T.tolist() == [9 * 4 + 2, 6 * 4 + 2, 29, 30, 31, 3 * 4]
    assert batch.views[1].slots_T.tolist() == [
        59 * 4 + 2,
        2 * 4 + 2,
        57 * 4 + 1,
        57 * 4 + 2,
        57 * 4 + 3,
        53 * 4,
    ]
    assert batch.views[0].sequence_lengths == [3, 7, 5]
    assert batch.views[0].block_tables_SN[1:].tolist() == [[5, 6], [7, 3]]
    # Row 0 has one known token left: it does not sample.
    assert batch.sample_rows == [3, 1]
    assert batch.sample_rows_R.tolist() == [3, 1]
    assert batch.sample_tokens_R is not None and batch.sample_tokens_R.tolist() == [0, 1]


def test_counts_follow_from_the_protocol(rows: TokenRows) -> None:
    entered = SchedulerOutput(
        step=0,
        ended_rows=[],
        new_rows=[new_row(2, [1, 2, 3], [4])],
        rows=[2],
        num_tokens=[3],
        new_blocks=[[]],
    )
    rows.apply(entered)
    batch = gather_batch(rows, entered)
    rows.advance(batch.rows, batch.num_tokens, batch.rows_S, batch.num_tokens_S)
    rows.append(batch.sample_rows, batch.sample_rows_R, torch.tensor([77]))
    following = SchedulerOutput(
        step=1, ended_rows=[], new_rows=[], rows=[2], num_tokens=[1], new_blocks=[[[], []]]
    )
    rows.apply(following)
    batch = gather_batch(rows, following)
    assert batch.token_ids_T.tolist() == [77]
    assert batch.positions_T.tolist() == [3]
    assert batch.sample_tokens_R is None
    assert (rows.num_known[2], rows.num_computed[2]) == (4, 3)
    assert (rows.lengths[2].item(), rows.computed[2].item()) == (4, 3)


def test_tokens_that_are_not_known_cannot_be_computed(rows: TokenRows) -> None:
    step = SchedulerOutput(
        step=0, ended_rows=[], new_rows=[new_row(2, [1, 2], [4])], rows=[2], num_tokens=[3], new_blocks=[[]]
    )
    rows.apply(step)
    with pytest.raises(AssertionError, match="known tokens only"):
        gather_batch(rows, step)
