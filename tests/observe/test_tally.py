"""A Tally shows what a histogram of prometheus_client shows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from octavo.observe.tally import Tally

BOUNDS = (0.001, 0.5, 1.0, 16.0)


@given(st.lists(st.sampled_from([0.0, 0.001, 0.0011, 0.5, 0.7, 1.0, 1.5, 16.0, 17.0, 1e9])))
def test_equal_to_the_usual_histogram(values: list[float]) -> None:
    usual, ours = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("name", "Help.", ["model"], buckets=BOUNDS, registry=usual).labels(model="m")
    tally = Tally("name", "Help.", {"model": "m"}, BOUNDS)
    ours.register(tally)
    for value in values:
        histogram.observe(value)
        tally.observe(value)
    lines = [line for line in generate_latest(usual).decode().splitlines() if "_created" not in line]
    assert generate_latest(ours).decode().splitlines() == lines
