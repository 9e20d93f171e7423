"""Ten times the load: the core goes on answering as many as it can, in time, and is soon itself again."""

from __future__ import annotations

import pytest

from tests.simulation.overload import CAPACITY, TARGET_S, WAVES, Overload, goodput, percentile


def burst(now: float, begin: float, end: float) -> float:
    """Requests per second: a little more than the core can do, ten times that, then few."""
    if now < begin:
        return 1.2 * CAPACITY
    return 10 * CAPACITY if now < end else CAPACITY / 5


def test_goodput_and_waits_at_ten_times_the_load() -> None:
    peak = goodput(Overload(lambda _: {"a": CAPACITY}, 40.0).run(), 10.0, 40.0)
    burst_end = 40.0
    visits = Overload(lambda now: {"a": burst(now, 10.0, burst_end)}, 60.0).run()
    assert goodput(visits, 10.0, burst_end) >= 0.9 * peak
    served = [visit for visit in visits if not visit.is_refused]
    assert percentile([visit.ttft for visit in served], 0.99) <= 1.05 * TARGET_S
    assert sum(visit.is_refused for visit in visits if visit.arrival < burst_end) > 2000
    # The hint says when there is room again: soon.
    assert all(visit.retry_after_s <= TARGET_S for visit in visits if visit.is_refused)
    after = [visit for visit in visits if visit.arrival > burst_end + 5.0]
    assert not any(visit.is_refused for visit in after)
    assert percentile([visit.ttft for visit in after], 0.99) < 0.5


@pytest.mark.parametrize(
    ("before", "factor", "share"), [(17.0, 1.1, 0.97), (1.0, 1.1, 0.97), (0.0, 1.7, 0.93)]
)
def test_a_burst_out_of_the_blue(before: float, factor: float, share: float) -> None:
    """There was never a queue to learn from. If there was no request at all, a few wait for too long."""

    def rates(now: float) -> dict[str, float]:
        return {"a": 340.0 if 10.0 < now < 30.0 else before}

    capacity = WAVES.max_num_seqs / (21 * WAVES.step_s)
    visits = Overload(rates, 32.0, machine=WAVES).run()
    ttfts = [visit.ttft for visit in visits if visit.arrival > 10.0 and not visit.is_refused]
    assert percentile(ttfts, 0.99) <= factor * WAVES.target_s
    assert goodput(visits, 12.0, 30.0) >= share * capacity
    assert percentile(ttfts, 0.5) >= 0.7 * WAVES.target_s, "the time there is has to be used"


def test_below_capacity_nobody_is_refused() -> None:
    visits = Overload(lambda _: {"a": 0.8 * CAPACITY}, 60.0).run()
    assert not any(visit.is_refused for visit in visits) and len(visits) > 400


def test_a_light_tenant_does_not_feel_a_heavy_one() -> None:
    def rates(_: float) -> dict[str, float]:
        return {"heavy": 10 * CAPACITY, "light": 0.5}

    def light(policy: str) -> list[float]:
        visits = Overload(rates, 40.0, policy).run()
        return [visit.ttft if not visit.is_refused else 99.0 for visit in visits if visit.tenant == "light"]

    fair, fcfs = light("fair"), light("fcfs")
    assert percentile(fair, 0.95) < 0.6, fair
    assert percentile(fcfs, 0.5) > 3.0, "without turns the load has to be as hard as it claims"


def test_a_seed_replays_exactly() -> None:
    def once() -> list[float | None]:
        return [visit.end for visit in Overload(lambda _: {"a": 3 * CAPACITY}, 8.0).run()]

    assert once() == once()
