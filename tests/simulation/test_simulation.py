"""Random loads on the simulated core. A failure names its seed for `python -m tests.simulation.simulate`."""

from __future__ import annotations

import pytest

from tests.simulation.replayable import run_many
from tests.simulation.simulate import run


def test_thousands_of_requests_under_pressure() -> None:
    reports = run_many(run, range(100), 30)
    assert sum(report.requests for report in reports) == 3000
    # The load has to be as hard as it claims, or the check above means little.
    assert sum(report.preemptions for report in reports) > 150
    assert sum(report.failures for report in reports) > 100
    assert sum(report.poisoned for report in reports) > 100
    assert sum(report.forced for report in reports) > 1000
    assert sum(report.restarts for report in reports) > 40
    assert sum(report.too_large for report in reports) > 120
    assert sum(report.aborted for report in reports) > 300
    assert sum(report.late for report in reports) > 80
    assert sum(report.hit_tokens for report in reports) > 400


def test_a_seed_replays_exactly() -> None:
    assert run(7, 40) == run(7, 40)


@pytest.mark.slow
def test_a_hundred_thousand_requests_leak_nothing() -> None:
    reports = run_many(run, range(10_000, 12_000), 50)
    assert sum(report.requests for report in reports) == 100_000
