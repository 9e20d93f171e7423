"""Log-probabilities of the prompt's own tokens, for rows that ask for them.

The state at position p tells of the token at p + 1, which the row knows already: so the last state of
a chunk serves the first token of the next one, and chunks need not be put together.

T tokens, N positions taken at once, E width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from octavo.messages.step import SchedulerOutput
from octavo.worker.extras.contract import Extra, StepResult
from octavo.worker.rows import TokenRows
from octavo.worker.sampling.logprobs import prompt_logprobs
from octavo.worker.step_batch import StepBatch

AT_ONCE = 64
"""Positions whose logits exist at the same time; a whole chunk's would dwarf everything else."""


class PromptLogprobs(Extra):
    def __init__(self, rows: TokenRows, logits: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._rows = rows
        self._logits = logits
        self._asked: dict[int, tuple[int, int]] = {}
        """Row -> (how many best ones, tokens of the prompt)."""

    def requests_changed(self, step: SchedulerOutput) -> None:
        for row in step.ended_rows:
            self._asked.pop(row, None)
        for new in step.new_rows:
            self._asked.pop(new.row, None)
            if new.params.prompt_logprobs is not None:
                self._asked[new.row] = (new.params.prompt_logprobs, new.num_prompt_tokens)

    def after_forward(self, batch: StepBatch, hidden_TE: torch.Tensor, result: StepResult) -> None:
        if not self._asked:
            return
        for i, row in enumerate(batch.rows):
            if row not in self._asked:
                continue
            top, num_prompt = self._asked[row]
            first = batch.first_positions[i]
            count = min(batch.num_tokens[i], num_prompt - 1 - first)
            if count <= 0:
                # The prompt is through: the row may go on without being looked at.
                del self._asked[row]
                continue
            start = batch.query_starts[i]
            pending = result.pending_prompt_logprobs.setdefault(row, [])
            for offset in range(0, count, AT_ONCE):
                end = min(offset + AT_ONCE, count)
                logits_NV = self._logits(hidden_TE[start + offset : start + end])
                following_N = self._rows.tokens[row, first + offset + 1 : first + end + 1]
                pending.append(prompt_logprobs(logits_NV, following_N, top))
