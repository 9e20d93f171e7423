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

    def sleep(self, level: int) -> None:
        """Give memory back while no request is there. 1: all but the weights, which leave a GPU; 2: all."""

    def wake_up(self) -> None:
        """Take it again, rows and KV cache empty. Raises, and sleeps on, if it cannot."""

    def start_profile(self) -> None: ...

    def stop_profile(self, folder: str) -> str:
        """Write what was recorded since start_profile into a file there, and return the file's name."""

    def shutdown(self) -> None:
        """Free everything. Idempotent."""
