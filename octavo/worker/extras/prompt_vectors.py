"""Prompts that are vectors instead of tokens: hands the model those that a step computes.

They stay in the host's memory; a GPU gets a chunk's own with the step. The copy waits for what the device
works on (Forward._inputs): a marked place, and only in steps with such prompts.
"""

from __future__ import annotations

import torch

from octavo.messages.prompt_vectors import PromptVectors
from octavo.messages.step import SchedulerOutput
from octavo.weights.views import bytes_tensor
from octavo.worker.extras.contract import Extra, GivenInputs
from octavo.worker.step_batch import StepBatch


class PromptVectorRows(Extra):
    """Holds the vectors [N, E] of each row that still computes such a prompt."""

    def __init__(self) -> None:
        self._vectors: dict[int, torch.Tensor] = {}

    def requests_changed(self, step: SchedulerOutput) -> None:
        for row in step.ended_rows:
            self._vectors.pop(row, None)
        for new in step.new_rows:
            self._vectors.pop(new.row, None)
            if new.prompt_vectors is not None:
                self._vectors[new.row] = _as_tensor(new.prompt_vectors)

    def give_inputs(self, batch: StepBatch, given: list[GivenInputs]) -> None:
        if not self._vectors:
            return
        for i, row in enumerate(batch.rows):
            if row not in self._vectors:
                continue
            vectors_NE = self._vectors[row]
            first = batch.first_positions[i]
            if first >= len(vectors_NE):
                # The prompt is through. A row that has to compute it again brings its vectors again.
                del self._vectors[row]
                continue
            chunk_NE = vectors_NE[first : first + batch.num_tokens[i]]
            given.append(GivenInputs(batch.query_starts[i], chunk_NE))


def _as_tensor(vectors: PromptVectors) -> torch.Tensor:
    return bytes_tensor(vectors.data, (vectors.num_tokens, vectors.width), vectors.dtype)
