"""The one definition of TTFT, TPOT, ITL, E2E and queue time. Seconds of one monotonic clock.

A measure that cannot be known yet (no token, one token) is None, never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class RequestTimes(Protocol):
    """When things happened to one request, and how much there was."""

    @property
    def arrival_time(self) -> float: ...
    @property
    def first_scheduled_time(self) -> float | None: ...
    @property
    def first_token_time(self) -> float | None: ...
    @property
    def last_token_time(self) -> float | None: ...
    @property
    def finished_time(self) -> float | None: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_output_tokens(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Latency:
    """All measures of one request."""

    ttft: float | None
    tpot: float | None
    e2e: float | None
    queue: float | None
    prefill: float | None
    decode: float | None
    inference: float | None


def time_to_first_token(times: RequestTimes) -> float | None:
    """TTFT: from the request's arrival to its first token."""
    return _gap(times.arrival_time, times.first_token_time)


def time_per_output_token(times: RequestTimes, num_samples: int = 1) -> float | None:
    """TPOT: mean time per output token after the first, for each of the samples that ran side by side."""
    steps = times.num_output_tokens / num_samples - 1
    decode = decode_time(times)
    return None if decode is None or steps <= 0 else decode / steps


def end_to_end(times: RequestTimes) -> float | None:
    """E2E: from the request's arrival to its end."""
    return _gap(times.arrival_time, times.finished_time or times.last_token_time)


def queue_time(times: RequestTimes) -> float | None:
    """From the request's arrival until it was first scheduled."""
    return _gap(times.arrival_time, times.first_scheduled_time)


def prefill_time(times: RequestTimes) -> float | None:
    """From first scheduled to the first token."""
    return _gap(times.first_scheduled_time, times.first_token_time)


def decode_time(times: RequestTimes) -> float | None:
    """From the first token to the last."""
    return _gap(times.first_token_time, times.last_token_time)


def inference_time(times: RequestTimes) -> float | None:
    """From first scheduled to the last token."""
    return _gap(times.first_scheduled_time, times.last_token_time)


def inter_token_latency(previous_output: float, this_output: float, num_tokens: int) -> float:
    """ITL: the gap between two outputs of one sample, spread over the tokens of the later one."""
    return max(this_output - previous_output, 0.0) / max(num_tokens, 1)


def measure(times: RequestTimes, num_samples: int = 1) -> Latency:
    """Every measure of a finished request."""
    return Latency(
        ttft=time_to_first_token(times),
        tpot=time_per_output_token(times, num_samples),
        e2e=end_to_end(times),
        queue=queue_time(times),
        prefill=prefill_time(times),
        decode=decode_time(times),
        inference=inference_time(times),
    )


def _gap(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(end - start, 0.0)
