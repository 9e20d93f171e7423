"""Costs of steps: fitted from what steps took, through changes and long stretches of sameness."""

from __future__ import annotations

import random

import pytest

from octavo.core.in_flight import StepRecord
from octavo.core.kv.block import Holding
from octavo.core.latency_budget import LEAST_CHUNK, LatencyBudget
from octavo.core.request import Request
from octavo.core.step_cost import StepCost


def true_seconds(num_tokens: int, num_context: int, slow: float = 1.0) -> float:
    return slow * (0.005 + 50e-6 * num_tokens + 0.2e-6 * num_context)


def taught(count: int = 200, noise: float = 0.0) -> StepCost:
    rng, cost = random.Random(1), StepCost()
    for _ in range(count):
        tokens, context = rng.choice([8, 64, 300, 1500]), rng.randrange(20_000)
        cost.learn(tokens, context, true_seconds(tokens, context) * (1 + noise * rng.uniform(-1, 1)))
    return cost


def test_three_coefficients_are_found() -> None:
    cost = taught()
    assert cost.seconds(500, 10_000) == pytest.approx(true_seconds(500, 10_000), rel=0.01)
    assert cost.tokens_within(0.03, 10_000) == pytest.approx((0.03 - 0.005 - 0.002) / 50e-6, rel=0.02)
    assert cost.tokens_within(0.001, 0) < 0 and cost.most_seen == 1500


def test_noise_is_averaged() -> None:
    assert taught(400, noise=0.2).seconds(500, 10_000) == pytest.approx(true_seconds(500, 10_000), rel=0.1)


def test_many_small_steps_do_not_make_it_forget_large_ones() -> None:
    cost = taught()
    for number in range(20_000):
        cost.learn(8, 100 + number % 5000, true_seconds(8, 100 + number % 5000))
    assert cost.tokens_within(0.03, 1000) == pytest.approx((0.03 - 0.0052) / 50e-6, rel=0.05)


def test_a_slower_machine_is_noticed() -> None:
    cost, rng = taught(), random.Random(2)
    for _ in range(200):
        tokens, context = rng.choice([8, 64, 300]), rng.randrange(20_000)
        cost.learn(tokens, context, true_seconds(tokens, context, slow=2.0))
    assert cost.seconds(200, 10_000) == pytest.approx(true_seconds(200, 10_000, slow=2.0), rel=0.2)


def test_no_coefficient_is_below_zero() -> None:
    cost = StepCost()
    for tokens, seconds in ((10, 0.02), (100, 0.01), (1000, 0.001)):  # Larger is quicker: absurd.
        cost.learn(tokens, 0, seconds)
    assert cost.seconds(0, 0) >= 0 and cost.seconds(10**6, 0) >= cost.seconds(1, 0) >= 0
    assert StepCost().tokens_within(0.01, 0) == float("inf")


def test_a_device_that_is_too_slow_for_the_target_still_lets_prompts_in(request_for) -> None:
    """Noise makes tokens seem to cost nothing, and even a step without any takes too long."""
    budget, rng = LatencyBudget(2048, target_s=0.01), random.Random(3)
    streaming = Request(request_for("r", [1]), (0, 0), Holding("r", b""))
    streaming.num_computed = 1
    for number in range(200):
        record = StepRecord(number)
        assert budget.for_step(record, [streaming]) >= 1 + LEAST_CHUNK
        record.num_tokens = rng.choice([1, 2, 3])
        budget.step_took(record, abs(rng.gauss(0.05, 0.01)))
