"""Tally: a histogram for what happens per token: noting is a bisection, and a scrape makes the samples."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from math import inf

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Tally(Collector):
    """One series. Not for several threads at once: the event loop notes and scrapes."""

    def __init__(self, name: str, help: str, labels: Mapping[str, str], bounds: Iterable[float]) -> None:
        self._name = name
        self._help = help
        self._labels = dict(labels)
        self._bounds = [*bounds, inf]
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._help, labels=list(self._labels))
        buckets, total = [], 0
        for bound, count in zip(self._bounds, self._counts, strict=True):
            total += count
            buckets.append((str(floatToGoString(bound)), float(total)))  # type: ignore[no-untyped-call]
        family.add_metric(list(self._labels.values()), buckets, self._sum)
        yield family
