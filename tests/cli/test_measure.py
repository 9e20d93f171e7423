import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.base.errors import ConfigError
from octavo.cli.bench.measure import Outcome, meets, parse_objectives, percentile, summarise


def outcome(sent=0.0, first=0.1, last=0.5, tokens=5, **more):
    return Outcome(
        arrival_time=sent,
        first_token_time=first,
        last_token_time=last,
        finished_time=last,
        num_prompt_tokens=10,
        num_output_tokens=tokens,
        **more,
    )


def test_a_summary_by_hand():
    outcomes = [outcome(), outcome(first=0.3, last=1.1, gaps=[0.2, 0.6]), outcome(error="no")]
    summary = summarise(outcomes, 2.0, {"ttft": 200, "tpot": 150})
    assert (summary.num_requests, summary.num_failed) == (3, 1)
    assert (summary.prompt_tokens, summary.output_tokens) == (20, 10)
    assert summary.request_throughput == 1.0
    assert summary.output_throughput == 5.0
    assert summary.total_token_throughput == 15.0
    assert summary.goodput == 0.5
    assert summary.ttft_ms is not None and summary.ttft_ms.mean == pytest.approx(200)
    assert summary.tpot_ms is not None and summary.tpot_ms.p50 == pytest.approx(150)
    assert summary.itl_ms is not None and summary.itl_ms.max == pytest.approx(600)
    assert summary.e2el_ms is not None and summary.e2el_ms.p50 == pytest.approx(800)


def test_nothing_finished():
    summary = summarise([outcome(error="no")], 1.0, {})
    assert summary.ttft_ms is None
    assert summary.goodput is None
    assert summary.request_throughput == 0


def test_one_token_has_no_tpot_and_meets_it():
    single = outcome(last=0.1, tokens=1)
    assert summarise([single], 1.0, {}).tpot_ms is None
    assert meets(single, {"tpot": 1.0})
    assert not meets(single, {"ttft": 99.0})


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50))
def test_percentiles_agree_with_the_standard_library(values):
    values.sort()
    expected = statistics.quantiles(values, n=100, method="inclusive")
    for percent in (1, 50, 90, 99):
        assert percentile(values, percent) == pytest.approx(expected[percent - 1], abs=1e-6)
    assert percentile(values, 0) == values[0]
    assert percentile(values, 100) == values[-1]


def test_objectives():
    assert parse_objectives(["ttft:200", "tpot:0.5"]) == {"ttft": 200.0, "tpot": 0.5}
    for wrong in ("ttft", "ttft:", "ttft:x", "ttft:0", "ttft:-1", "ttft:nan", "speed:1"):
        with pytest.raises(ConfigError, match="NAME:MILLISECONDS"):
            parse_objectives([wrong])
