"""LatencyBudget: a step computes as many tokens as fit between two tokens of a stream.

While somebody's answer is under way, the step's tokens are chosen so that it should end within the target;
prompts come in the chunks that are left. While nobody streams, steps are as large as they may be.
"""

from __future__ import annotations

from collections.abc import Sequence

from octavo.core.in_flight import StepRecord
from octavo.core.request import Request
from octavo.core.step_budget import StepBudget
from octavo.core.step_cost import StepCost

LEAST_CHUNK = 16
"""Prompt tokens that a step takes whatever the target: who waits must come in."""
FIRST_CHUNK = 64
GROWTH = 2
"""A step is at most so many times as large as the largest one seen: costs are not guessed far ahead."""


class LatencyBudget(StepBudget):
    """The budget of `--itl-target-ms`."""

    def __init__(self, most: int, target_s: float) -> None:
        super().__init__(most)
        self._target_s = target_s
        self.cost = StepCost()

    def for_step(self, record: StepRecord, running: Sequence[Request]) -> int:
        record.num_context = num_context = sum(request.num_computed for request in running)
        if not any(request.num_computed >= request.num_prompt for request in running):
            return self.tokens
        fitting = self.cost.tokens_within(self._target_s, num_context)
        known = max(GROWTH * self.cost.most_seen, len(running) + FIRST_CHUNK)
        # `fitting` may be infinite, either way.
        return min(self.tokens, int(max(len(running) + LEAST_CHUNK, min(fitting, known))))

    def step_took(self, record: StepRecord, seconds: float) -> None:
        super().step_took(record, seconds)
        if record.num_tokens:
            self.cost.learn(record.num_tokens, record.num_context, seconds)
