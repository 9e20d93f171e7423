"""Extra: the five places in a step where an optional part may act. All do nothing here.

The runner holds extras in a plain list and calls them in its order. T tokens, R rows that sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from octavo.messages.result import TokenLogprobs
from octavo.messages.step import SchedulerOutput
from octavo.worker.step_batch import StepBatch

if TYPE_CHECKING:
    from octavo.worker.sampling.sampler import Sampled


@dataclass(kw_only=True)
class StepResult:
    """What extras add to the step's output."""

    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)


class Extra:
    """Override what you need."""

    def requests_changed(self, step: SchedulerOutput) -> None:
        """Rows ended or began. The token rows already know."""

    def before_forward(self, batch: StepBatch) -> None:
        """The batch is gathered; nothing is computed."""

    def after_forward(self, batch: StepBatch, hidden_TE: torch.Tensor, result: StepResult) -> None:
        """Hidden states of all tokens are there; nothing is sampled."""

    def before_sample(self, batch: StepBatch, logits_RV: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the logits to sample from."""
        return logits_RV

    def after_sample(self, batch: StepBatch, sampled: Sampled, result: StepResult) -> None:
        """Tokens are chosen and appended to their rows."""
