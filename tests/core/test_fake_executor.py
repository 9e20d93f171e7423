"""The fake executor has to notice: wrong blocks, wrong rows and wrong positions give wrong tokens."""

from __future__ import annotations

import time

import pytest

from octavo.core.kv.plan import plan_kv
from octavo.executor.fake import FULL, FakeExecutor, expected_tokens, sliding
from octavo.messages.params import SamplingParams
from octavo.messages.step import NewRow, SchedulerOutput

LAYERS = [FULL, sliding(3)]


def started(**options) -> FakeExecutor:
    executor = FakeExecutor(layers=LAYERS, **options)
    facts = executor.start()
    assert facts.vocab_size == 1000 and facts.kv_layers == LAYERS
    executor.allocate(
        plan_kv(facts.kv_layers, block_size=2, num_blocks=20, available_bytes=0, useful_tokens=0)
    )
    return executor


def first_token(executor: FakeExecutor, prompt: list[int], tables: list[list[int]], row: int = 0) -> int:
    new = NewRow(
        row=row, request_id="r", token_ids=prompt, num_prompt_tokens=len(prompt), num_computed_tokens=0,
        block_ids=tables, params=SamplingParams(), random_key=-3, eos_token_ids=[],
    )  # fmt: skip
    executor.submit(
        SchedulerOutput(
            step=1, ended_rows=[], new_rows=[new], rows=[row], num_tokens=[len(prompt)], new_blocks=[[[], []]]
        )
    )
    return executor.collect().token_ids[0]


def next_token(executor: FakeExecutor, row: int = 0) -> int:
    executor.submit(
        SchedulerOutput(step=2, ended_rows=[], new_rows=[], rows=[row], num_tokens=[1], new_blocks=[[[], []]])
    )
    return executor.collect().token_ids[0]


def right(prompt: list[int], count: int) -> list[int]:
    return expected_tokens(prompt, count, key=-3, vocab_size=1000, layers=LAYERS)


def test_tokens_are_those_expected() -> None:
    executor = started()
    tokens = [
        first_token(executor, [1, 2, 3], [[1, 2, 3], [4, 5, 6]]),
        next_token(executor),
        next_token(executor),
    ]
    assert tokens == right([1, 2, 3], 3)


@pytest.mark.parametrize("tables", [[[1, 2, 3], [1, 5, 6]], [[1, 1, 3], [4, 5, 6]]])
def test_doubled_blocks_show(tables) -> None:
    executor = started()
    assert [first_token(executor, [1, 2, 3], tables), next_token(executor)] != right([1, 2, 3], 2)


def test_overwritten_blocks_show() -> None:
    executor = started()
    first_token(executor, [1, 2, 3], [[1, 2, 3], [4, 5, 6]])
    first_token(executor, [9, 9, 9], [[7, 2, 8], [9, 10, 11]], row=1)
    assert next_token(executor) != right([1, 2, 3], 2)[1]


def test_null_block_is_never_written() -> None:
    with pytest.raises(AssertionError, match="null block"):
        first_token(started(), [1, 2, 3], [[1, 0, 3], [4, 5, 6]])


def test_row_in_use_and_missing_tokens_are_refused() -> None:
    executor = started()
    first_token(executor, [1, 2, 3], [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(AssertionError, match="in use"):
        first_token(executor, [1], [[7], [8]])
    executor.submit(
        SchedulerOutput(step=3, ended_rows=[], new_rows=[], rows=[0], num_tokens=[2], new_blocks=[[[], []]])
    )
    with pytest.raises(AssertionError, match="has no tokens"):
        executor.collect()


def test_end_of_text_comes_as_often_as_asked() -> None:
    tokens = expected_tokens([1], 2000, key=1, vocab_size=10**6, eos_probability=0.25, eos_token_id=7)
    assert 400 < tokens.count(7) < 600


def test_a_step_takes_its_time() -> None:
    executor = started(step_seconds=0.02)
    began = time.monotonic()
    first_token(executor, [1], [[1], [2]])
    assert time.monotonic() - began >= 0.02
