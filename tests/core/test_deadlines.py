"""Deadlines: who waits too long is never computed, who runs too long is ended, and both are told why."""

from __future__ import annotations

from octavo.messages.request import Terms
from octavo.messages.result import FinishReason


def test_an_expired_waiting_request_is_never_computed(bench, request_for) -> None:
    b = bench(seqs=1)
    b.core.add(request_for("first", [1, 2], 8))
    b.core.add(request_for("late", [3, 4], 8, terms=Terms(deadline=3.0)))
    b.run()
    delta = b.last["late"]
    assert (delta.finish_reason, delta.error_code) == (FinishReason.ERROR, "DEADLINE_EXCEEDED")
    assert delta.error is not None and "it still waited" in delta.error
    assert all(new.request_id != "late" for step in b.executor.steps for new in step.new_rows)
    assert b.last["first"].finish_reason is FinishReason.LENGTH


def test_one_that_comes_too_late_is_answered_at_once(bench, request_for) -> None:
    b = bench()
    b.core.add(request_for("late", [3, 4], 8, terms=Terms(deadline=-1.0)))
    [delta] = b.step()
    assert delta.error_code == "DEADLINE_EXCEEDED" and not b.executor.steps and not b.core.has_work()


def test_a_running_request_ends_at_its_deadline(bench, request_for) -> None:
    for depth in (1, 2):
        b = bench(depth=depth)
        b.core.add(request_for("runs", [1, 2], 30, terms=Terms(deadline=10.0)))
        b.core.add(request_for("other", [1, 2], 30))
        b.run()
        delta = b.last["runs"]
        assert delta.error_code == "DEADLINE_EXCEEDED" and 5 < len(b.tokens["runs"]) < 11
        assert len(b.tokens["other"]) == 30
        assert b.core.stats().num_free_blocks == b.core.stats().num_blocks


def test_deadlines_of_ended_requests_are_forgotten(bench, request_for) -> None:
    b = bench()
    for number in range(200):
        b.core.add(request_for(f"r{number}", [1], 1, terms=Terms(deadline=1e9)))
    b.run()
    assert not b.core._requests._deadlines._requests and len(b.core._requests._deadlines._heap) <= 17
