"""The second texts of pairs, for models that tell by an embedding which text a token belongs to.

T tokens of a second text, E width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from octavo.messages.step import SchedulerOutput
from octavo.worker.extras.contract import Extra, GivenInputs
from octavo.worker.rows import TokenRows
from octavo.worker.step_batch import StepBatch


class SecondTexts(Extra):
    """embed_second: as the model's `embed`, for tokens of a second text."""

    def __init__(self, rows: TokenRows, embed_second: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._rows = rows
        self._embed_second = embed_second
        self._begins: dict[int, int] = {}
        """Row -> where its second text begins."""

    def requests_changed(self, step: SchedulerOutput) -> None:
        for row in step.ended_rows:
            self._begins.pop(row, None)
        for new in step.new_rows:
            self._begins.pop(new.row, None)
            if new.pooling is not None and new.pooling.second_from is not None:
                self._begins[new.row] = new.pooling.second_from

    def give_inputs(self, batch: StepBatch, given: list[GivenInputs]) -> None:
        for i, row in enumerate(batch.rows) if self._begins else ():
            if row in self._begins:
                begin, end = self._begins[row], batch.num_tokens[i]  # Encoders compute whole texts.
                vectors_TE = self._embed_second(self._rows.tokens[row, begin:end])
                given.append(GivenInputs(batch.query_starts[i] + begin, vectors_TE))
