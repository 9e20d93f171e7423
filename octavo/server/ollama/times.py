"""Times as Ollama says them: nanoseconds, and days with a zone."""

from __future__ import annotations

from datetime import UTC, datetime

from octavo.engine.outputs import RequestMetrics, RequestOutput

NS = 1_000_000_000


def now() -> str:
    """The present moment."""
    return rfc3339(datetime.now(UTC))


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Durations:
    """Where the time of a request went, from when its bytes had arrived to its last token."""

    def __init__(self, began: float, output: RequestOutput) -> None:
        metrics = output.metrics or RequestMetrics(arrival_time=began)
        scheduled = metrics.first_scheduled_time or metrics.arrival_time
        first = metrics.first_token_time or scheduled
        ended = metrics.finished_time or metrics.last_token_time or first
        self.load = _ns(began, scheduled)
        """Reading the body, rendering and waiting for a place: the model itself is always loaded."""
        self.prompt = _ns(scheduled, first)
        self.answer = _ns(first, ended)
        self.total = _ns(began, ended)


def _ns(begin: float, end: float) -> int:
    """At least 1: clients divide by these."""
    return max(1, round((end - begin) * NS))
