"""Shapes the core needs from outside."""

from __future__ import annotations

from typing import Protocol

from octavo.messages.kv import KVPlan
from octavo.messages.result import StepOutput
from octavo.messages.start import WorkerFacts
from octavo.messages.step import SchedulerOutput


class Executor(Protocol):
    """Runs steps on workers. Steps run in the order submitted.

    submit() may return before the step has run; collect() waits for the oldest one not collected yet.
    If collect() raises, that step produced nothing for anybody.
    """

    def start(self) -> WorkerFacts:
        """Load the model. Called once, first."""

    def allocate(self, plan: KVPlan) -> dict[str, float]:
        """Make the KV cache and all else that steps need. Called once, after start. Seconds by part."""

    def submit(self, step: SchedulerOutput) -> None: ...

    def collect(self) -> StepOutput: ...

    def shutdown(self) -> None:
        """Free everything. Idempotent."""
