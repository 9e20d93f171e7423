"""Steps that do not fit the device's memory: smaller ones instead of errors."""

from __future__ import annotations

import logging

import pytest

from octavo.base.errors import DeviceOutOfMemory, EngineError
from octavo.core.in_flight import StepRecord
from octavo.core.step_budget import FIRST_PATIENCE, StepBudget
from octavo.executor.fake import expected_tokens
from octavo.messages.result import FinishReason
from octavo.messages.step import SchedulerOutput
from tests.core.conftest import RecordingExecutor

PROMPTS = {"a": list(range(30)), "b": [6, 7], "c": list(range(10, 31)), "d": [1, 2, 3]}


def right(prompt, count: int) -> list[int]:
    return expected_tokens(prompt, count, key=5, vocab_size=1000)


def fits(most: int):
    """A device with memory for steps of at most `most` tokens."""

    def fail(step):
        if sum(step.num_tokens) > most:
            raise DeviceOutOfMemory("The device is full.")
        return {}

    return fail


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("most", [1, 2, 7])
@pytest.mark.parametrize("caching", [True, False])
def test_every_request_gets_its_answer_in_steps_that_fit(bench, request_for, depth, most, caching) -> None:
    b = bench(depth=depth, caching=caching, fail=fits(most))
    for name, prompt in PROMPTS.items():
        b.core.add(request_for(name, prompt, 12))
    b.run()
    assert b.tokens == {name: right(prompt, 12) for name, prompt in PROMPTS.items()}
    assert b.executor.num_rows == 0
    assert b.core.stats().num_free_blocks == b.core.stats().num_blocks


def test_a_failed_step_is_halved_by_what_it_computed(bench, request_for) -> None:
    b = bench(budget=32, fail=fits(5))
    b.core.add(request_for("a", range(20), 2))
    b.run()
    assert [sum(step.num_tokens) for step in b.executor.steps if step.rows] == [20, 10, 5, 5, 5, 5, 1]


@pytest.mark.parametrize("depth", [1, 2])
def test_only_who_fails_alone_in_the_smallest_step_gets_the_error(bench, request_for, depth) -> None:
    def fail(step):
        if any(new.request_id == "bad" for new in step.new_rows):
            rows.update(new.row for new in step.new_rows if new.request_id == "bad")
        if rows.intersection(step.rows):
            raise DeviceOutOfMemory("The device is full.")
        return {}

    rows: set[int] = set()
    b = bench(depth=depth, fail=fail, seqs=3)
    b.core.add(request_for("good", [1, 2, 3], 30))
    b.step()
    b.core.add(request_for("bad", range(9), 3))
    while "bad" not in b.last or b.last["bad"].finish_reason is None:
        b.step()
        rows.clear()
        rows.update(r.row for r in b.core._scheduler.running if r.request_id == "bad")
    assert b.last["bad"].finish_reason is FinishReason.ERROR
    assert "The device is full." in b.last["bad"].error
    b.run()
    assert b.tokens["good"] == right([1, 2, 3], 30)


def test_whole_prompts_run_alone_when_they_do_not_fit_together(bench, request_for) -> None:
    b = bench(budget=40, max_len=40, fail=fits(21), schedule={"enable_chunked_prefill": False})
    b.core.add(request_for("a", range(20), 3))
    b.core.add(request_for("b", range(50, 70), 3))
    b.core.add(request_for("huge", range(100, 130), 3))
    b.run()
    assert b.tokens["a"] == right(range(20), 3) and b.tokens["b"] == right(range(50, 70), 3)
    assert b.last["huge"].finish_reason is FinishReason.ERROR


@pytest.mark.parametrize("depth", [1, 2])
def test_submitting_may_run_out_of_memory_too(bench, request_for, depth) -> None:
    b = bench(depth=depth)
    for name, prompt in PROMPTS.items():
        b.core.add(request_for(name, prompt, 9))
    for _ in range(4):
        b.step()
    submit = b.executor.submit

    def full(step) -> None:
        b.executor.submit = submit
        raise DeviceOutOfMemory("The device is full.")

    b.executor.submit = full
    b.step()
    b.run()
    assert b.tokens == {name: right(prompt, 9) for name, prompt in PROMPTS.items()}


def test_it_is_said_once(bench, request_for, caplog) -> None:
    b = bench(fail=fits(2))
    b.core.add(request_for("a", range(20), 9))
    with caplog.at_level(logging.WARNING, logger="octavo.core"):
        b.run()
    assert len([r for r in caplog.records if "out of memory" in r.message]) == 1


def test_a_device_that_never_fits_anything_is_broken(bench, request_for) -> None:
    b = bench(fail=fits(0))
    for number in range(3):
        b.core.add(request_for(str(number), [1], 1))
    with pytest.raises(EngineError, match="started anew"):
        b.run()


def test_the_budget_grows_back_and_each_time_later() -> None:
    budget = StepBudget(64)
    budget.step_took(StepRecord(1), 0.0)
    assert budget.tokens == 64
    waits = []
    for _ in range(3):
        budget.shrink(64)
        assert budget.tokens == 32
        count = 0
        while budget.tokens < 64:
            budget.step_took(StepRecord(1), 0.0)
            count += 1
        waits.append(count)
    assert waits == [2 * FIRST_PATIENCE, 4 * FIRST_PATIENCE, 8 * FIRST_PATIENCE]
    budget.shrink(1)
    assert budget.tokens == 1


class FullAtSecondSubmit(RecordingExecutor):
    """The second step does not fit, and is refused before it is on its way."""

    def submit(self, step: SchedulerOutput) -> None:
        super().submit(step)
        if len(self.steps) == 2:
            self._submitted.pop()
            raise DeviceOutOfMemory("The device is full.")


def test_who_starts_again_on_blocks_of_a_step_that_then_fails_for_it_starts_once_more(
    bench, request_for
) -> None:
    """What was computed for the request in that step is unusable, though it wants nothing of it any more."""

    def fail(step):
        return {0: "not a number"} if step.step == 1 else {}

    b = bench(depth=2, budget=4, fail=fail, executor=FullAtSecondSubmit)
    b.core.add(request_for("a", range(12), 5))
    b.run()
    assert any(new.num_computed_tokens for step in b.executor.steps for new in step.new_rows)
    assert b.tokens["a"] == right(range(12), 5)
