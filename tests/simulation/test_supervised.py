"""Engine and supervisor above cores that die and hang, under a simulated clock."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.replayable import run_many
from tests.simulation.simulate_supervised import run


@pytest.fixture(autouse=True)
def _logs_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


def test_everybody_gets_an_answer_or_an_end_that_says_why() -> None:
    reports = run_many(run, range(80), 25)
    assert sum(report.requests for report in reports) == 2000
    # The load has to be as hard as it claims, or the check above means little.
    assert sum(report.answers for report in reports) > 400
    assert sum(report.restarts for report in reports) > 150
    assert sum(report.stalls for report in reports) > 8
    assert sum(report.failed_starts for report in reports) > 15
    assert sum(report.given_up for report in reports) > 50
    assert sum(report.refused for report in reports) > 200
    assert sum(report.rested for report in reports) > 80
    assert sum(report.late for report in reports) > 20
    assert sum(report.poisoned for report in reports) > 15
    assert sum(report.left for report in reports) > 150


def test_a_seed_replays_exactly() -> None:
    assert run(3, 30) == run(3, 30)


@pytest.mark.slow
def test_fifty_thousand_requests_end() -> None:
    reports = run_many(run, range(10_000, 11_000), 50)
    assert sum(report.requests for report in reports) == 50_000
