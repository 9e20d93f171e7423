"""The short form of `make chaos`."""

from __future__ import annotations

from tests.chaos.chaos import run


def test_a_kill_and_a_stop_under_load_cost_nobody_an_answer() -> None:
    result = run(num_faults=2, seed=7)
    assert result.passed, result
    assert result.faults == {"SIGKILL": 1, "SIGSTOP": 1}
