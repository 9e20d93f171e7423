"""Steps that fail because of a request in them: it is found, and alone fails."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from octavo.base.errors import DeviceBroken, EngineError
from octavo.core.probe import probe_like
from octavo.executor.fake import expected_tokens
from octavo.messages.request import Terms
from octavo.messages.result import FinishReason
from octavo.messages.step import SchedulerOutput


class Poison:
    """Fails each step that computes a request of these names, from its token number `since` on."""

    def __init__(self, *names: str, since: int = 0) -> None:
        self.names = names
        self.since = since
        self.num_failures = 0
        self._rows: dict[int, tuple[str, int]] = {}

    def __call__(self, step: SchedulerOutput) -> dict[int, str]:
        for row in step.ended_rows:
            self._rows.pop(row, None)
        for new in step.new_rows:
            self._rows[new.row] = new.request_id, new.num_computed_tokens
        is_poisoned = False
        for row, count in zip(step.rows, step.num_tokens, strict=True):
            name, computed = self._rows[row]
            self._rows[row] = name, computed + count
            is_poisoned |= name in self.names and computed + count > self.since
        if is_poisoned:
            self.num_failures += 1
            raise RuntimeError("poisoned")
        return {}


def prompt(number: int) -> list[int]:
    return [number, *range(10)]


def right(number: int, count: int) -> list[int]:
    return expected_tokens(prompt(number), count, key=5, vocab_size=1000)


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("since", [0, 13])
@pytest.mark.parametrize("culprits", [[0], [7], [2, 3], [0, 4, 5]])
def test_only_the_culprits_fail(
    bench: Any, request_for: Any, depth: int, since: int, culprits: list[int]
) -> None:
    poison = Poison(*(str(number) for number in culprits), since=since)
    b = bench(depth=depth, seqs=8, blocks=200, budget=100, fail=poison)
    for number in range(8):
        b.core.add(request_for(str(number), prompt(number), 9))
    b.run()
    for number in range(8):
        name = str(number)
        if number in culprits:
            assert b.last[name].finish_reason is FinishReason.ERROR
            assert b.tokens[name] == right(number, 9)[: len(b.tokens[name])]
        else:
            assert b.tokens[name] == right(number, 9)
    assert poison.num_failures <= 4 * len(culprits) * depth, "halving, not one by one"
    stats = b.core.stats()
    assert stats.num_free_blocks == stats.num_blocks and b.executor.num_rows == 0


def test_who_waits_or_arrives_meanwhile_is_not_concerned(bench: Any, request_for: Any) -> None:
    b = bench(seqs=4, fail=Poison("1"))
    for number in range(4):
        b.core.add(request_for(str(number), prompt(number), 9))
    b.step()
    # More important than all that are suspected: it must not block the queue that it heads.
    b.core.add(request_for("9", prompt(9), 9, priority=-1))
    b.core.abort(["0"])
    b.run()
    assert b.last["1"].finish_reason is FinishReason.ERROR
    for number in (2, 3, 9):
        assert b.tokens[str(number)] == right(number, 9)


def test_who_shared_a_step_with_a_culprit_that_has_left_is_not_convicted(
    bench: Any, request_for: Any
) -> None:
    b = bench(depth=2, fail=Poison("bad"))
    b.core.add(request_for("good", prompt(0), 9))
    b.core.add(request_for("bad", prompt(1), 9))
    assert b.step() == []  # Both are on their way in one step.
    b.core.abort(["bad"])
    b.run()
    assert b.tokens["good"] == right(0, 9)


def test_a_whole_trial_can_be_aborted(bench: Any, request_for: Any) -> None:
    b = bench(fail=Poison("0", "1"))
    for number in range(4):
        b.core.add(request_for(str(number), prompt(number), 9))
    b.step()
    b.core.abort(["0", "1", "2"])
    b.run()
    assert b.tokens["3"] == right(3, 9)


def test_many_poisoned_ones_in_a_row_do_not_condemn_the_executor(bench: Any, request_for: Any) -> None:
    b = bench(fail=Poison(*"0123456"))
    for number in range(8):
        b.core.add(request_for(str(number), prompt(number), 9))
    b.run()
    assert [b.last[name].finish_reason for name in "0123456"] == [FinishReason.ERROR] * 7
    assert b.tokens["7"] == right(7, 9)
    assert "probe" not in b.last
    for number in range(4):  # One by one, with nothing good in between.
        b.core.add(request_for(f"0{number}", prompt(number), 9))
        b.executor._fail.names += (f"0{number}",)
        b.run()
        assert b.last[f"0{number}"].finish_reason is FinishReason.ERROR


@pytest.mark.parametrize("depth", [1, 2])
def test_an_executor_that_fails_whatever_it_gets_calls_for_a_new_process(
    bench: Any, request_for: Any, depth: int
) -> None:
    b = bench(depth=depth, fail=Poison("probe", *"01234567"))
    for number in range(8):
        b.core.add(request_for(str(number), prompt(number), 9))
    with pytest.raises(EngineError, match="started anew"):
        b.run()
    b.core.check()
    assert sum(delta.finish_reason is FinishReason.ERROR for delta in b.last.values()) == 3


@pytest.mark.parametrize("depth", [1, 2])
def test_for_a_broken_device_nobody_is_blamed(bench: Any, request_for: Any, depth: int) -> None:
    def fail(step: SchedulerOutput) -> dict[int, str]:
        if step.step == 4:
            raise DeviceBroken("It fell off the bus.")
        return {}

    b = bench(depth=depth, fail=fail)
    for number in range(3):
        b.core.add(request_for(str(number), prompt(number), 9))
    with pytest.raises(DeviceBroken):
        b.run()
    b.core.check()
    for number in range(3):
        assert b.last[str(number)].finish_reason is None
        assert b.tokens[str(number)] == right(number, 9)[: len(b.tokens[str(number)])]


def test_a_probe_has_all_the_time_it_needs(request_for: Any) -> None:
    message = msgspec.structs.replace(request_for("late", [1, 2]), terms=Terms(deadline=1.0))
    assert probe_like(message).terms == Terms()
