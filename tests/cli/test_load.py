import asyncio
import itertools
import math

import pytest

from octavo.base.errors import ConfigError
from octavo.cli.bench.datasets import BenchRequest
from octavo.cli.bench.load import arrival_times, check_load, offer
from octavo.cli.bench.measure import Outcome

REQUESTS = [BenchRequest(prompt=[index], max_tokens=1) for index in range(30)]


def test_infinite_rate_is_all_at_once():
    assert arrival_times(3, math.inf, 1.0, 0) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 4.0])
def test_the_mean_rate_holds_for_any_burstiness(burstiness):
    times = arrival_times(20_000, 10.0, burstiness, 1)
    assert times[0] == 0.0
    assert times == sorted(times)
    assert times[-1] / len(times) == pytest.approx(0.1, rel=0.05)


def test_burstiness_is_the_shape_of_the_gaps():
    def relative_variance(burstiness):
        times = arrival_times(20_000, 10.0, burstiness, 1)
        gaps = [after - before for before, after in itertools.pairwise(times)]
        mean = sum(gaps) / len(gaps)
        return sum((gap - mean) ** 2 for gap in gaps) / len(gaps) / mean**2

    assert relative_variance(0.5) == pytest.approx(2.0, rel=0.1)
    assert relative_variance(4.0) == pytest.approx(0.25, rel=0.1)


async def test_concurrency_is_bounded_and_order_kept():
    running = most = 0
    done = []

    async def send(request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return Outcome(arrival_time=0.0, num_prompt_tokens=request.prompt[0])

    outcomes, _ = await offer(
        REQUESTS, send, due=[0.0] * len(REQUESTS), max_concurrency=4, on_done=done.append
    )
    assert most == 4
    assert [outcome.num_prompt_tokens for outcome in outcomes] == list(range(30))
    assert len(done) == 30


@pytest.mark.parametrize(
    "load",
    [
        (0.0, 1.0, None),
        (-1.0, 1.0, None),
        (math.nan, 1.0, None),
        (1.0, 0.0, None),
        (1.0, 1.0, 0),
        (math.inf, 2.0, None),
    ],
)
def test_impossible_loads_are_refused(load):
    with pytest.raises(ConfigError):
        check_load(*load)
