"""Extra: the six places in a step where an optional part may act. All do nothing here.

The runner holds extras in a plain list and calls them in its order. T tokens, R rows that sample, N some
tokens in a row, E width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from octavo.messages.result import Numbers, TokenLogprobs
from octavo.messages.step import SchedulerOutput
from octavo.worker.step_batch import StepBatch
from octavo.worker.upload import Download

if TYPE_CHECKING:
    from octavo.worker.sampling.logprobs import PendingLogprobs
    from octavo.worker.sampling.pending import PendingSample


class GivenInputs(NamedTuple):
    """Vectors that the model reads instead of what some of a step's tokens would look up."""

    start: int
    """Which of the step's tokens is the first of them."""
    vectors_NE: torch.Tensor
    """Of any floating type, on any device."""


class PendingNumbers:
    """Answers of some rows on their way from the device. N numbers each, or of each of T tokens."""

    def __init__(self, rows: list[int], answers: torch.Tensor) -> None:
        """answers: float32, one entry per row."""
        self._rows = rows
        self._is_finite_R = Download(torch.isfinite(answers).flatten(1).all(1))
        self._answers = Download(answers)

    def finish(self, numbers: dict[int, Numbers], failed: dict[int, str]) -> None:
        """On a GPU: only after the event that was recorded behind this step."""
        answers = self._answers.read().contiguous()
        shape = list(answers.shape[1:])
        for row, own, is_finite in zip(
            self._rows, answers.numpy(), self._is_finite_R.read().tolist(), strict=True
        ):
            if is_finite:
                numbers[row] = Numbers(own.tobytes(), shape)
            else:
                failed[row] = "The model's answer holds NaN or infinite numbers."


@dataclass(kw_only=True)
class StepResult:
    """What extras add to the step's output."""

    pending_prompt_logprobs: dict[int, list[PendingLogprobs]] = field(default_factory=dict)
    """By row, in the order of positions: still on their way from the device."""
    prompt_logprobs: dict[int, list[TokenLogprobs]] = field(default_factory=dict)
    """By row, once finished."""
    failed: dict[int, str] = field(default_factory=dict)
    """By row: what makes its token worthless."""
    refused: list[int] = field(default_factory=list)
    """Rows among these that wish for what cannot be done."""
    forced: dict[int, list[int]] = field(default_factory=dict)
    """By row: tokens that were appended behind the sampled one."""
    pending_numbers: list[PendingNumbers] = field(default_factory=list)
    numbers: dict[int, Numbers] = field(default_factory=dict)
    """By row, once finished: answers that are no tokens."""

    def finish(self) -> None:
        """Read what is on its way. On a GPU the runner has waited for the step first."""
        for row, pieces in self.pending_prompt_logprobs.items():
            self.prompt_logprobs[row] = [found for piece in pieces for found in piece.finish()]
        self.pending_prompt_logprobs.clear()
        for pending in self.pending_numbers:
            pending.finish(self.numbers, self.failed)
        self.pending_numbers.clear()


class Extra:
    """Override what you need."""

    def requests_changed(self, step: SchedulerOutput) -> None:
        """Rows ended or began. The token rows already know."""

    def before_forward(self, batch: StepBatch) -> None:
        """The batch is gathered; nothing is computed."""

    def give_inputs(self, batch: StepBatch, given: list[GivenInputs]) -> None:
        """Append the inputs of tokens whose ids are placeholders. A step with any runs without graphs."""

    def after_forward(self, batch: StepBatch, hidden_TE: torch.Tensor, result: StepResult) -> None:
        """Hidden states of all tokens are there; nothing is sampled."""

    def before_sample(self, batch: StepBatch, logits_RV: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return the logits to sample from."""
        return logits_RV

    def after_sample(self, batch: StepBatch, sampled: PendingSample, result: StepResult) -> None:
        """Tokens are chosen and appended to their rows, on the device; the host has not seen them."""
