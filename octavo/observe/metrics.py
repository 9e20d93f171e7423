"""Metrics: what the server counts and what a scrape reads, in a Prometheus registry of its own.

Methods are cheap enough to be called per token; `render` is called per scrape. Not bound to a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from octavo.observe.latency import RequestTimes, measure
from octavo.observe.metric_table import (
    BASE_LABELS,
    FINISH_REASONS,
    HTTP_METHODS,
    HTTP_REQUESTS,
    METRICS,
    REJECTION_REASONS,
    MetricSpec,
    bounded,
)
from octavo.observe.tally import Tally
from octavo.observe.tenant_metrics import TenantCollector

OFTEN = ("event_loop_lag_seconds", "inter_token_latency_seconds", "iteration_tokens_total")
"""Histograms that are too busy for a lock and a walk over the buckets each time."""


class StepStats(Protocol):
    """What a step of the core reports; more of its fields are read by name (`MetricSpec.source`)."""

    @property
    def step_tokens(self) -> int: ...


class Metrics:
    """One per server. `prefix` goes before every name but http_requests_total."""

    def __init__(self, *, model_name: str, prefix: str = "vllm:", engine: str = "0") -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._labels = dict(zip(BASE_LABELS, (model_name, engine), strict=True))
        self._prefix = prefix
        self._handlers: tuple[str, ...] = ()
        self._counters: dict[str, Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._gauges: dict[str, Gauge] = {}
        self._tallies: dict[str, Tally] = {}
        for spec in METRICS:
            if spec.source is None:
                self._make(spec)
        self._http = Counter(
            HTTP_REQUESTS.name, HTTP_REQUESTS.help, HTTP_REQUESTS.labels, registry=self.registry
        )
        self._token_gaps = self._tallies["inter_token_latency_seconds"]
        self._step_tokens = self._tallies["iteration_tokens_total"]
        self._loop_lags = self._tallies["event_loop_lag_seconds"]
        ProcessCollector(registry=self.registry)

    def read_stats(self, stats: Callable[[], StepStats]) -> None:
        """From now on each scrape also shows the core's gauges and counters. Called once."""
        self.registry.register(_StatsCollector(stats, self._prefix, self._labels))

    def read_tenants(self, usage: Callable[[], Mapping[str, object]]) -> None:
        """From now on each scrape also shows what each tenant has used, by name. Called once."""
        self.registry.register(TenantCollector(usage, self._prefix, self._labels))

    def know_handlers(self, handlers: Iterable[str]) -> None:
        """Route templates that may appear as a label; anything else is counted as 'other'."""
        self._handlers = tuple(handlers)

    def cache_config(self, facts: Mapping[str, object]) -> None:
        """Publish how the cache is laid out (block_size, num_gpu_blocks, ...)."""
        values = {name: str(value) for name, value in facts.items()}
        self._gauges["cache_config_info"].labels(**self._labels, **values).set(1)

    def step_done(self, stats: StepStats) -> None:
        """A step of the core ended."""
        self._step_tokens.observe(stats.step_tokens)

    def loop_lag(self, seconds: float) -> None:
        """The event loop came this late to a call."""
        self._loop_lags.observe(seconds)

    def token_gap(self, seconds: float) -> None:
        """Two outputs of one stream lay this far apart."""
        self._token_gaps.observe(seconds)

    def rejected(self, reason: str) -> None:
        """The engine refused a request; reason is an error code."""
        self._counter("admission_rejections", reason=bounded(reason, REJECTION_REASONS)).inc()

    def samples_ended(self, reasons: Sequence[str]) -> None:
        """Samples ended, each for one of the finish reasons."""
        for reason in reasons:
            self._counter("request_success", finished_reason=bounded(reason, FINISH_REASONS)).inc()

    def request_finished(
        self, times: RequestTimes, *, n: int, max_tokens: int | None, num_cached_tokens: int
    ) -> None:
        """A request ran to its end."""
        latency = measure(times, n)
        self._observe("request_prompt_tokens", times.num_prompt_tokens)
        self._observe("request_generation_tokens", times.num_output_tokens)
        self._observe("request_params_n", n)
        self._observe("request_params_max_tokens", max_tokens)
        self._counter("prompt_tokens_cached").inc(num_cached_tokens)
        self._observe("time_to_first_token_seconds", latency.ttft)
        self._observe("request_time_per_output_token_seconds", latency.tpot)
        self._observe("e2e_request_latency_seconds", latency.e2e)
        self._observe("request_queue_time_seconds", latency.queue)
        self._observe("request_inference_time_seconds", latency.inference)
        self._observe("request_prefill_time_seconds", latency.prefill)
        self._observe("request_decode_time_seconds", latency.decode)

    def http(self, method: str, handler: str, status: int) -> None:
        """An HTTP request was answered; handler is the route's template."""
        self._http.labels(
            method=bounded(method, HTTP_METHODS),
            handler=bounded(handler, self._handlers),
            status=f"{status // 100}xx",
        ).inc()

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page for a scraper: body and content type, by its Accept header."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _make(self, spec: MetricSpec) -> None:
        name = self._prefix + spec.name
        labels = (*BASE_LABELS, *spec.labels)
        if spec.name in OFTEN:
            self._tallies[spec.name] = Tally(name, spec.help, self._labels, spec.buckets)
            self.registry.register(self._tallies[spec.name])
            return
        if spec.kind == "histogram":
            self._histograms[spec.name] = Histogram(
                name, spec.help, labels, buckets=spec.buckets, registry=self.registry
            )
        elif spec.kind == "counter":
            self._counters[spec.name] = Counter(name, spec.help, labels, registry=self.registry)
        else:
            self._gauges[spec.name] = Gauge(name, spec.help, labels, registry=self.registry)
        self._start_at_zero(spec)

    def _start_at_zero(self, spec: MetricSpec) -> None:
        """Create the series now: a rate over a series that starts at 1 misses the first event."""
        if spec.kind == "histogram":
            self._histogram(spec.name)
        elif spec.kind == "counter":
            values = {"request_success": FINISH_REASONS, "admission_rejections": REJECTION_REASONS}
            for value in values.get(spec.name, ()):
                self._counter(spec.name, **{spec.labels[0]: value})
            if not spec.labels:
                self._counter(spec.name)

    def _counter(self, name: str, **labels: str) -> Counter:
        return self._counters[name].labels(**self._labels, **labels)

    def _histogram(self, name: str) -> Histogram:
        return self._histograms[name].labels(**self._labels)

    def _observe(self, name: str, value: float | None) -> None:
        if value is not None:
            self._histogram(name).observe(value)


class _StatsCollector(Collector):
    """Turns the core's latest stats into samples at each scrape."""

    def __init__(self, stats: Callable[[], StepStats], prefix: str, labels: Mapping[str, str]) -> None:
        self._stats = stats
        self._prefix = prefix
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        for spec in METRICS:
            if spec.source is None:
                continue
            family = (CounterMetricFamily if spec.kind == "counter" else GaugeMetricFamily)(
                self._prefix + spec.name, spec.help, labels=list(self._labels)
            )
            family.add_metric(list(self._labels.values()), float(getattr(stats, spec.source)))
            yield family
