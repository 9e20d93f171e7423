"""Two steps in flight: what is submitted, and taken in, before anybody waits for what."""

from __future__ import annotations

from typing import Any

import pytest

from octavo.engine.core_serve import serve_core
from octavo.messages.request import AbortRequest
from octavo.messages.result import FinishReason, StepOutput
from octavo.messages.step import SchedulerOutput
from octavo.messages.wire import CoreUpdate, Shutdown


class Diary:
    """Patches an executor and plays a channel: everything that happens, in order.

    `script` maps a moment ('start', 'collect 3') to messages that are there from then on.
    """

    def __init__(self, executor: Any, script: dict[str, list[Any]]) -> None:
        self.lines: list[str] = []
        self.updates: list[CoreUpdate] = []
        self._script = script
        self._inbox = script.get("start", [])
        self._submit, self._collect = executor.submit, executor.collect
        executor.submit, executor.collect = self.submit, self.collect

    def submit(self, step: SchedulerOutput) -> None:
        self._note(f"submit {step.step}")
        self._submit(step)

    def collect(self) -> StepOutput:
        output = self._collect()
        self._note(f"collect {output.step}")
        return output

    def receive(self, wait: bool) -> list[Any]:
        messages, self._inbox = self._inbox, []
        if wait and not messages:
            self._note("idle")
            return [Shutdown()]
        if messages:
            self._note("take " + ",".join(getattr(message, "request_id", "abort") for message in messages))
        return messages

    def send(self, message: Any) -> None:
        self.updates.append(message)
        tokens = [f"{d.request_id}{len(d.token_ids)}{d.finish_reason or ''}" for d in message.deltas]
        self._note("send " + ",".join(tokens))

    def _note(self, line: str) -> None:
        self.lines.append(line)
        self._inbox = self._inbox + self._script.pop(line, [])

    @property
    def tokens(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for update in self.updates:
            for delta in update.deltas:
                counts[delta.request_id] = counts.get(delta.request_id, 0) + len(delta.token_ids)
        return counts


def live(bench: Any, script: dict[str, list[Any]], **options: Any) -> tuple[Any, Diary]:
    b = bench(**{"depth": 2, **options})
    diary = Diary(b.executor, script)
    serve_core(b.core, diary)
    b.core.check()
    return b, diary


def test_the_next_step_is_submitted_before_anybody_waits_for_this_one(bench, request_for) -> None:
    _, diary = live(bench, {"start": [request_for("a", [1, 2], 4)]})
    assert diary.lines == [
        "take a",
        "submit 1",
        "submit 2",
        "collect 1",
        "send a1",
        "submit 3",
        "collect 2",
        "send a1",
        "submit 4",
        "collect 3",
        "send a1",
        # All its tokens are on their way: there is nothing to submit, and nothing to wait for but this.
        "collect 4",
        "send a1length",
        "submit 5",  # tells the workers of the ended row
        "collect 5",
        "send ",
        "idle",
    ]


def test_one_step_at_a_time_where_the_device_gains_nothing(bench, request_for) -> None:
    _, diary = live(bench, {"start": [request_for("a", [1, 2], 2)]}, depth=1)
    assert diary.lines[:5] == ["take a", "submit 1", "collect 1", "send a1", "submit 2"]


def test_messages_are_taken_between_steps(bench, request_for) -> None:
    """A newcomer is in the very next step that is submitted, while the device is busy with one before it."""
    script = {"start": [request_for("a", [1, 2], 9)], "collect 3": [request_for("b", [3], 2)]}
    _, diary = live(bench, script)
    taken = diary.lines.index("take b")
    assert diary.lines[taken - 2 : taken + 2] == ["collect 3", "send a1", "take b", "submit 5"]
    assert diary.tokens == {"a": 9, "b": 2}


def test_a_lone_request_of_one_token_costs_one_step(bench, request_for) -> None:
    _, diary = live(bench, {"start": [request_for("a", [1, 2], 1)]})
    assert diary.lines[:4] == ["take a", "submit 1", "collect 1", "send a1length"]


def test_a_token_is_reported_as_soon_as_it_is_there(bench, request_for) -> None:
    """Nothing is held until a later step: after each collect comes its report."""
    _, diary = live(bench, {"start": [request_for(name, [1, 2, 3], 6) for name in "abc"]})
    for index, line in enumerate(diary.lines):
        if line.startswith("collect"):
            assert diary.lines[index + 1].startswith("send")


def test_nothing_is_said_where_nothing_happened(bench, request_for) -> None:
    """A step that was only submitted is no news: the other end would wake up for nothing."""
    _, diary = live(bench, {"start": [request_for("a", range(20), 5)]}, budget=4)
    num_collected = sum(line.startswith("collect") for line in diary.lines)
    assert len(diary.updates) == num_collected
    assert [update.stats.step_tokens for update in diary.updates][:3] == [4, 4, 4]


def test_an_end_that_comes_as_a_surprise_wastes_one_row_and_nothing_else(bench, request_for) -> None:
    first = live(bench, {"start": [request_for("a", [1, 2], 3)]})[1].updates
    stop = next(d.token_ids[0] for update in first for d in update.deltas)
    b, diary = live(bench, {"start": [request_for("a", [1, 2], 9, stop_token_ids=[stop])]})
    (delta,) = [d for update in diary.updates for d in update.deltas]
    assert (delta.token_ids, delta.finish_reason) == ([stop], FinishReason.STOP)
    assert sum(sum(step.num_tokens) for step in b.executor.steps) == 2 + 1
    assert diary.lines[-1] == "idle" and b.executor.num_rows == 0
    assert b.core.stats().num_free_blocks == b.core.stats().num_blocks


def test_an_abort_while_its_tokens_are_on_their_way(bench, request_for) -> None:
    script = {
        "start": [request_for("a", [1, 2], 30), request_for("b", [3, 4], 6)],
        "collect 3": [AbortRequest(request_ids=["a"])],
    }
    b, diary = live(bench, script)
    assert diary.tokens == {"a": 3, "b": 6}
    assert b.executor.num_rows == 0 and not b.core.has_work()


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_idle_core_has_nothing_in_flight(bench, request_for, depth) -> None:
    _, diary = live(bench, {"start": [request_for("a", [1, 2], 5)]}, depth=depth)
    submitted = [line for line in diary.lines if line.startswith("submit")]
    collected = [line for line in diary.lines if line.startswith("collect")]
    assert len(submitted) == len(collected) and diary.lines[-1] == "idle"
