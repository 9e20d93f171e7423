"""When requests are sent: all at once, at a rate (open loop), never more than so many (closed loop)."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from octavo.base.errors import ConfigError
from octavo.cli.bench.datasets import BenchRequest
from octavo.cli.bench.measure import Outcome

Send = Callable[[BenchRequest], Awaitable[Outcome]]


def check_load(request_rate: float, burstiness: float, max_concurrency: int | None) -> None:
    if not request_rate > 0:
        raise ConfigError("--request-rate must be over 0, or inf for all at once.", param="--request-rate")
    if not 0 < burstiness < math.inf:
        raise ConfigError("--burstiness must be over 0; 1 is a Poisson process.", param="--burstiness")
    if burstiness != 1 and math.isinf(request_rate):
        raise ConfigError(
            "--burstiness is about the gaps of a --request-rate, and without one all requests go at once: "
            "give a rate too.",
            param="--burstiness",
        )
    if max_concurrency is not None and max_concurrency < 1:
        raise ConfigError("--max-concurrency must be at least 1.", param="--max-concurrency")


def arrival_times(count: int, request_rate: float, burstiness: float, seed: int) -> list[float]:
    """Seconds after the start at which each request is due.

    Gaps are gamma distributed with mean 1/rate: burstiness 1 is a Poisson process, lower comes in
    bursts, higher is more even. An infinite rate sends everything at once.
    """
    if math.isinf(request_rate):
        return [0.0] * count
    source = random.Random(seed)
    times: list[float] = []
    now = 0.0
    for _ in range(count):
        times.append(now)
        now += source.gammavariate(burstiness, 1 / (request_rate * burstiness))
    return times


async def offer(
    requests: Sequence[BenchRequest],
    send: Send,
    *,
    due: Sequence[float],
    max_concurrency: int | None,
    on_done: Callable[[Outcome], None],
) -> tuple[list[Outcome], float]:
    """Send every request at its time; give the outcomes in order and the seconds all of it took."""
    gate = asyncio.Semaphore(max_concurrency or len(requests))
    began = time.monotonic()

    async def one(request: BenchRequest, at: float) -> Outcome:
        delay = began + at - time.monotonic()
        if delay > 0:
            await asyncio.sleep(delay)
        async with gate:
            outcome = await send(request)
        on_done(outcome)
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(request, at)) for request, at in zip(requests, due, strict=True)]
    return [task.result() for task in tasks], time.monotonic() - began
