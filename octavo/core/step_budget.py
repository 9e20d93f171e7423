"""StepBudget: how many tokens a step may compute; fewer for a while after the device ran out of memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from octavo.core.in_flight import StepRecord
from octavo.core.request import Request

log = logging.getLogger(__name__)

FIRST_PATIENCE = 16
MAX_PATIENCE = 1 << 14


class StepBudget:
    """Halved when a step did not fit, doubled again after a while in which all steps did.

    Each failure doubles that while: what is lost by trying too large a step is soon paid back, and a
    request that has to start again each time comes to its end all the same.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        """What is configured."""
        self.tokens = most
        """What the next step may compute."""
        self._patience = FIRST_PATIENCE
        self._num_good = 0

    def shrink(self, num_tokens: int) -> None:
        """A step of so many tokens did not fit."""
        if self.tokens == self.most:
            log.warning(
                "The device ran out of memory in a step of %d tokens: its requests start again in smaller "
                "steps. If this repeats, lower max_num_batched_tokens or memory_utilization.",
                num_tokens,
            )
        self.tokens = max(1, min(self.tokens, num_tokens) // 2)
        self._patience = min(2 * self._patience, MAX_PATIENCE)
        self._num_good = 0

    def for_step(self, record: StepRecord, running: Sequence[Request]) -> int:  # noqa: ARG002
        """How many tokens the step may compute that is about to be scheduled. Runs per step."""
        return self.tokens

    def step_took(self, record: StepRecord, seconds: float) -> None:  # noqa: ARG002
        """A step came back. Runs per step."""
        if self.tokens == self.most:
            return
        self._num_good += 1
        if self._num_good >= self._patience:
            self._num_good = 0
            self.tokens = min(2 * self.tokens, self.most)
