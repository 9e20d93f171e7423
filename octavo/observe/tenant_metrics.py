"""What tenants used, at a scrape. Labels hold names, never keys, and only so many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from octavo.observe.metric_table import OTHER, MetricSpec

MAX_NAMES = 200
"""So many tenants have series of their own; the others share one, named 'other'."""

LABELS = ("tenant",)

TENANT_METRICS = (
    MetricSpec("tenant_requests", "counter", "requests", "Requests let in.", LABELS, source="requests"),
    MetricSpec(
        "tenant_requests_refused",
        "counter",
        "requests",
        "Refused by the key's limits.",
        LABELS,
        source="refused",
    ),
    MetricSpec("tenant_prompt_tokens", "counter", "tokens", "Prompt tokens.", LABELS, source="prompt_tokens"),
    MetricSpec(
        "tenant_prompt_tokens_cached",
        "counter",
        "tokens",
        "Of these, cached.",
        LABELS,
        source="cached_tokens",
    ),
    MetricSpec(
        "tenant_generation_tokens", "counter", "tokens", "Tokens generated.", LABELS, source="output_tokens"
    ),
    MetricSpec(
        "tenant_engine_seconds",
        "counter",
        "seconds",
        "First step to end, of all requests.",
        LABELS,
        source="engine_seconds",
    ),
    MetricSpec(
        "tenant_block_seconds",
        "counter",
        "blocks × seconds",
        "Blocks of the KV cache times seconds held.",
        LABELS,
        source="block_seconds",
    ),
)


class TenantCollector(Collector):
    """Turns the ledger into samples."""

    def __init__(
        self, usage: Callable[[], Mapping[str, object]], prefix: str, labels: Mapping[str, str]
    ) -> None:
        """usage: by name, objects with the sources of TENANT_METRICS as numbers."""
        self._usage = usage
        self._prefix = prefix
        self._labels = dict(labels)

    def collect(self) -> Iterable[Metric]:
        usage = self._usage()
        for spec in TENANT_METRICS:
            assert spec.source is not None, "each is read from the ledger"
            values: dict[str, float] = {}
            for place, (name, used) in enumerate(usage.items()):
                label = name if place < MAX_NAMES else OTHER
                values[label] = values.get(label, 0.0) + float(getattr(used, spec.source))
            family = CounterMetricFamily(self._prefix + spec.name, spec.help, labels=[*self._labels, *LABELS])
            for label, value in values.items():
                family.add_metric([*self._labels.values(), label], value)
            yield family
