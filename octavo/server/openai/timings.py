"""Makes the timings of a finished request out of what the engine measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from octavo.engine.outputs import RequestMetrics, RequestOutput
from octavo.observe.latency import decode_time, end_to_end, prefill_time, queue_time, time_to_first_token
from octavo.server.openai.schema.timings import Timings


def timings_of(outputs: Iterable[RequestOutput]) -> Timings | None:
    """Of the last outputs of all prompts of one body, taken as one piece of work. None: not measured."""
    finished = [
        (output.metrics, output.num_cached_tokens) for output in outputs if output.metrics is not None
    ]
    if not finished:
        return None
    times = _together([metrics for metrics, _ in finished])
    num_cached = sum(cached for _, cached in finished)
    prompt, predicted = prefill_time(times), decode_time(times)
    # The first token of a request ends its prompt's time: only the others are paid for after it.
    num_later = times.num_output_tokens - 1
    prompt_pace = _Pace(times.num_prompt_tokens - num_cached, prompt)
    predicted_pace = _Pace(num_later, predicted)
    return Timings(
        prompt_n=times.num_prompt_tokens - num_cached,
        cache_n=num_cached,
        prompt_ms=_ms(prompt),
        prompt_per_token_ms=prompt_pace.per_token_ms,
        prompt_per_second=prompt_pace.per_second,
        predicted_n=times.num_output_tokens,
        predicted_ms=_ms(predicted),
        predicted_per_token_ms=predicted_pace.per_token_ms,
        predicted_per_second=predicted_pace.per_second,
        queue_ms=_ms(queue_time(times)),
        ttft_ms=_ms(time_to_first_token(times)),
        total_ms=_ms(end_to_end(times)),
    )


@dataclass(frozen=True)
class _Pace:
    """So many tokens in so many seconds."""

    num_tokens: int
    seconds: float | None

    @property
    def per_token_ms(self) -> float | None:
        return None if not self.seconds or self.num_tokens < 1 else _ms(self.seconds / self.num_tokens)

    @property
    def per_second(self) -> float | None:
        return None if not self.seconds or self.num_tokens < 1 else round(self.num_tokens / self.seconds, 3)


def _together(all_metrics: list[RequestMetrics]) -> RequestMetrics:
    """From the first thing that happened to the last."""

    def known(name: str) -> list[float]:
        return [value for metrics in all_metrics if (value := getattr(metrics, name)) is not None]

    return RequestMetrics(
        arrival_time=min(metrics.arrival_time for metrics in all_metrics),
        first_scheduled_time=min(known("first_scheduled_time"), default=None),
        first_token_time=min(known("first_token_time"), default=None),
        last_token_time=max(known("last_token_time"), default=None),
        finished_time=max(known("finished_time"), default=None),
        num_prompt_tokens=sum(metrics.num_prompt_tokens for metrics in all_metrics),
        num_output_tokens=sum(metrics.num_output_tokens for metrics in all_metrics),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
