from __future__ import annotations

import pytest

from octavo.engine.outputs import RequestMetrics
from octavo.observe.latency import inter_token_latency, measure, time_per_output_token

WHOLE = RequestMetrics(
    arrival_time=10.0,
    first_scheduled_time=10.5,
    first_token_time=11.0,
    last_token_time=13.0,
    finished_time=13.5,
    num_prompt_tokens=7,
    num_output_tokens=5,
)


def test_every_measure() -> None:
    latency = measure(WHOLE)
    assert latency.queue == 0.5
    assert latency.ttft == 1.0
    assert latency.prefill == 0.5
    assert latency.decode == 2.0
    assert latency.tpot == 0.5
    assert latency.inference == 2.5
    assert latency.e2e == 3.5


def test_tpot_counts_samples_that_run_side_by_side() -> None:
    times = RequestMetrics(arrival_time=0, first_token_time=1.0, last_token_time=3.0, num_output_tokens=10)
    assert time_per_output_token(times, 2) == 0.5


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_what_is_not_known_is_none(num_tokens: int) -> None:
    latency = measure(RequestMetrics(arrival_time=1.0, num_output_tokens=num_tokens))
    assert set(vars(latency).values()) == {None}


def test_a_gap_is_spread_over_its_tokens_and_never_negative() -> None:
    assert inter_token_latency(1.0, 2.0, 4) == 0.25
    assert inter_token_latency(2.0, 1.0, 1) == 0.0
    assert inter_token_latency(1.0, 2.0, 0) == 1.0
