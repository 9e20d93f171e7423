"""From single requests to the percentiles and rates a benchmark prints. Pure arithmetic.

Latencies are those of `observe/latency.py`; here a request arrives when the client sends it. ITL is
the gap between two received pieces of text. Tokens are what the engine's `usage` counted, never a
guess. Goodput: finished requests per second that met every objective.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from octavo.base.errors import ConfigError
from octavo.observe.latency import end_to_end, time_per_output_token, time_to_first_token

OBJECTIVES = {"ttft": time_to_first_token, "tpot": time_per_output_token, "e2el": end_to_end}
"""Latencies that --goodput can limit, under vLLM's names."""


class Outcome(msgspec.Struct, kw_only=True):
    """What happened to one request; has the shape of `observe.latency.RequestTimes`."""

    arrival_time: float
    """When it was sent."""
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    last_token_time: float | None = None
    finished_time: float | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_cached_tokens: int = 0
    gaps: list[float] = []
    """Seconds between received pieces of text, in order."""
    error: str | None = None


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark run. Rates are per second of the whole run."""

    num_requests: int
    num_failed: int
    duration_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    goodput: float | None
    ttft_ms: Distribution | None
    tpot_ms: Distribution | None
    itl_ms: Distribution | None
    e2el_ms: Distribution | None


def summarise(outcomes: Sequence[Outcome], duration_s: float, objectives_ms: Mapping[str, float]) -> Summary:
    """Failed requests count as failed and nowhere else."""
    good = [outcome for outcome in outcomes if outcome.error is None]
    prompt_tokens = sum(outcome.num_prompt_tokens for outcome in good)
    output_tokens = sum(outcome.num_output_tokens for outcome in good)
    seconds = max(duration_s, 1e-9)
    met = sum(meets(outcome, objectives_ms) for outcome in good)
    return Summary(
        num_requests=len(outcomes),
        num_failed=len(outcomes) - len(good),
        duration_s=duration_s,
        prompt_tokens=prompt_tokens,
        cached_tokens=sum(outcome.num_cached_tokens for outcome in good),
        output_tokens=output_tokens,
        request_throughput=len(good) / seconds,
        output_throughput=output_tokens / seconds,
        total_token_throughput=(prompt_tokens + output_tokens) / seconds,
        goodput=met / seconds if objectives_ms else None,
        ttft_ms=distribution(map(time_to_first_token, good)),
        tpot_ms=distribution(map(time_per_output_token, good)),
        itl_ms=distribution(gap for outcome in good for gap in outcome.gaps),
        e2el_ms=distribution(map(end_to_end, good)),
    )


def meets(outcome: Outcome, objectives_ms: Mapping[str, float]) -> bool:
    """Whether a request met every objective. A latency it does not have (one token has no TPOT) is met."""
    return all((OBJECTIVES[name](outcome) or 0.0) * 1000 <= limit for name, limit in objectives_ms.items())


def distribution(seconds: Iterable[float | None]) -> Distribution | None:
    """None when there is nothing to describe."""
    values = sorted(value * 1000 for value in seconds if value is not None)
    if not values:
        return None
    return Distribution(
        mean=sum(values) / len(values),
        p50=percentile(values, 50),
        p90=percentile(values, 90),
        p99=percentile(values, 99),
        max=values[-1],
    )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Linear interpolation between the two nearest of `ordered` (ascending, not empty)."""
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def parse_objectives(words: Sequence[str]) -> dict[str, float]:
    """['ttft:200', 'tpot:50'] -> milliseconds by name."""
    objectives: dict[str, float] = {}
    for word in words:
        name, _, limit = word.partition(":")
        try:
            value = float(limit)
        except ValueError:
            value = -1.0
        if name not in OBJECTIVES or not value > 0:
            raise ConfigError(
                f"--goodput {word!r} is not understood. Write NAME:MILLISECONDS with NAME one of "
                f"{', '.join(OBJECTIVES)}, for example ttft:200 tpot:50.",
                param="--goodput",
            )
        objectives[name] = value
    return objectives
