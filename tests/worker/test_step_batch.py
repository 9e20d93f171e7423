"""Rows and a step become a batch and its tensors: order, positions, slots, who samples, what is shared."""

from __future__ import annotations

import pytest
import torch

from octavo.messages.params import SamplingParams
from octavo.messages.step import NewRow, SchedulerOutput
from octavo.worker import step_batch
from octavo.worker.rows import TokenRows
from octavo.worker.step_batch import StepBatch, order_step
from octavo.worker.step_buffers import StepBounds, StepBuffers


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


def load(
    rows: TokenRows, step: SchedulerOutput, long_prompt: int | None = None
) -> tuple[StepBatch, StepBuffers]:
    rows.apply(step)
    batch = order_step(rows, step, long_prompt)
    buffers = StepBuffers(rows, max_seqs=4, max_tokens=20)
    buffers.load(batch)
    buffers.gather(batch.total_tokens + 1)
    return batch, buffers


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
    batch, buffers = load(rows, step)
    # Single tokens first, the shorter sequence before the longer; then the chunk.
    assert (batch.rows, batch.num_tokens, batch.first_positions) == ([3, 1, 0], [1, 1, 4], [2, 6, 1])
    assert batch.query_starts == [0, 1, 2, 6]
    assert (batch.num_singles, batch.view.num_paged, batch.num_shared_blocks) == (2, 3, 0)
    # One place more was gathered than the step has tokens: it gets no slot.
    assert buffers.token_ids_T[:7].tolist() == [32, 26, 11, 12, 13, 14, 0]
    assert buffers.positions_T[:7].tolist() == [2, 6, 1, 2, 3, 4, 0]
    views = buffers.views(StepBounds.of(batch), batch.view)
    assert views[0].slots_T.tolist() == [9 * 4 + 2, 6 * 4 + 2, 29, 30, 31, 3 * 4]
    assert views[1].slots_T.tolist() == [59 * 4 + 2, 2 * 4 + 2, 57 * 4 + 1, 57 * 4 + 2, 57 * 4 + 3, 53 * 4]
    assert buffers.slots_GT[:, 6].tolist() == [-1, -1]
    assert views[0].lengths_S.tolist() == [3, 7, 5]
    assert views[0].table_RM[views[0].rows_S][1:, :2].tolist() == [[5, 6], [7, 3]]
    assert rows.host_tables[0][[1, 0], :2].tolist() == [[5, 6], [7, 3]]
    # Row 0 has one known token left: it does not sample.
    assert batch.sample_rows == [3, 1] and not batch.samples_everywhere
    assert buffers.sample_rows_R[:2].tolist() == [3, 1]
    assert buffers.sample_columns_R[:2].tolist() == [3, 7]
    assert buffers.sample_tokens_R[:2].tolist() == [0, 1]


def test_long_prompts_come_last(rows: TokenRows) -> None:
    step = SchedulerOutput(
        step=0,
        ended_rows=[],
        new_rows=[
            new_row(0, list(range(9)), [7, 3, 4]),
            new_row(1, list(range(9)), [5, 6, 8], computed=4),
            new_row(2, list(range(3)), [9]),
        ],
        rows=[0, 1, 2],
        num_tokens=[5, 5, 3],
        new_blocks=[[], [], []],
    )
    rows.apply(step)
    batch = order_step(rows, step, 5)
    assert (batch.rows, batch.view.num_paged, batch.num_singles) == ([2, 1, 0], 2, 0)
    batch = order_step(rows, step, None)
    assert (batch.rows, batch.view.num_paged) == ([2, 0, 1], 3)


def test_counts_follow_from_the_protocol(rows: TokenRows) -> None:
    entered = SchedulerOutput(
        step=0,
        ended_rows=[],
        new_rows=[new_row(2, [1, 2, 3], [4])],
        rows=[2],
        num_tokens=[3],
        new_blocks=[[]],
    )
    batch, buffers = load(rows, entered)
    rows.advance(batch.rows, batch.num_tokens)
    rows.append(
        batch.sample_rows, buffers.sample_rows_R[:1], buffers.sample_columns_R[:1], torch.tensor([77])
    )
    following = SchedulerOutput(
        step=1, ended_rows=[], new_rows=[], rows=[2], num_tokens=[1], new_blocks=[[[], []]]
    )
    batch, buffers = load(rows, following)
    assert buffers.token_ids_T[:1].tolist() == [77]
    assert buffers.positions_T[:1].tolist() == [3]
    assert batch.samples_everywhere
    assert (rows.num_known[2], rows.num_computed[2]) == (4, 3)


def test_tokens_that_are_not_known_cannot_be_computed(rows: TokenRows) -> None:
    step = SchedulerOutput(
        step=0, ended_rows=[], new_rows=[new_row(2, [1, 2], [4])], rows=[2], num_tokens=[3], new_blocks=[[]]
    )
    rows.apply(step)
    with pytest.raises(AssertionError, match="known tokens only"):
        order_step(rows, step, None)


@pytest.mark.parametrize(
    ("tables", "shared"),
    [
        ([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3, 6]], 3),
        ([[1, 2, 3, 4], [1, 2, 9, 5], [1, 2, 3, 6]], 2),
        ([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]], 3),  # the last block of the shortest is its own
        ([[1, 2, 3, 4], [1, 8, 3, 5], [1, 2, 3, 6]], 0),  # one common block is too little to pay
        ([[1, 2, 3, 4], [1, 2, 3, 5]], 0),  # too few sequences
    ],
)
def test_blocks_that_all_sequences_begin_with(
    tables: list[list[int]], shared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_batch, "SHARING_SEQS", 3)
    monkeypatch.setattr(step_batch, "SHARING_TOKENS", 8)
    rows = TokenRows(num_rows=4, max_model_len=20, block_size=4, num_groups=1, device=torch.device("cpu"))
    new_rows = [
        NewRow(
            row=row,
            request_id=str(row),
            token_ids=list(range(16)),
            num_prompt_tokens=16,
            num_computed_tokens=15,
            block_ids=[table],
            params=SamplingParams(),
            random_key=0,
            eos_token_ids=[],
        )
        for row, table in enumerate(tables)
    ]
    step = SchedulerOutput(
        step=0,
        ended_rows=[],
        new_rows=new_rows,
        rows=list(range(len(tables))),
        num_tokens=[1] * len(tables),
        new_blocks=[[] for _ in tables],
    )
    rows.apply(step)
    assert order_step(rows, step, None).num_shared_blocks == shared
