"""Pools hidden states into answers, for rows whose last token a step computes; others leave a sum.

T tokens, S sequences of the step, R rows that are answered, E width, N numbers of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from octavo.config.pooling import Activation, PoolingFacts, PoolingType
from octavo.messages.pooling import TOKEN_TASKS, PoolingParams
from octavo.messages.step import SchedulerOutput
from octavo.worker.extras.contract import Extra, PendingNumbers, StepResult
from octavo.worker.step_batch import StepBatch
from octavo.worker.upload import upload

Answer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(eq=False)
class _Open:
    """A row that has not been answered."""

    params: PoolingParams
    sum_E: torch.Tensor | None = None
    """float32: of the hidden states so far, where a mean is wanted."""
    pieces_TN: list[torch.Tensor] = field(default_factory=list)
    """Answers of the tokens so far, where each has its own."""

    @property
    def wants_tokens(self) -> bool:
        return self.params.task in TOKEN_TASKS


class Pooler(Extra):
    """answer: from pooled states [R, E] to answers [R, N], before activation (see PooledModel)."""

    def __init__(self, facts: PoolingFacts, answer: Answer, device: torch.device) -> None:
        self._facts = facts
        self._answer = answer
        self._device = device
        self._open: dict[int, _Open] = {}

    def requests_changed(self, step: SchedulerOutput) -> None:
        for row in step.ended_rows:
            self._open.pop(row, None)
        for new in step.new_rows:
            assert new.pooling is not None, "whoever writes does not come to a model that is pooled"
            self._open[new.row] = _Open(new.pooling)

    def after_forward(self, batch: StepBatch, hidden_TE: torch.Tensor, result: StepResult) -> None:
        states = [self._open[row] for row in batch.rows]
        for i, state in enumerate(states):
            if state.wants_tokens:
                self._take_tokens(state, hidden_TE[batch.query_starts[i] : batch.query_starts[i + 1]])
        means_SE = self._add_means(batch, states, hidden_TE) if self._means else None
        ending = [i for i in batch.sampling if not states[i].wants_tokens]
        if ending:
            pooled_RE = self._pooled(batch, ending, hidden_TE, means_SE)
            self._finish(batch, states, ending, self._answer(pooled_RE), result)
        for i in batch.sampling:
            if states[i].wants_tokens:
                whole_TN = torch.cat(states[i].pieces_TN)
                result.pending_numbers.append(PendingNumbers([batch.rows[i]], whole_TN[None]))

    @property
    def _means(self) -> bool:
        return self._facts.pooling is PoolingType.MEAN

    def _pooled(
        self, batch: StepBatch, ending: list[int], hidden_TE: torch.Tensor, means_SE: torch.Tensor | None
    ) -> torch.Tensor:
        """[R, E]"""
        if means_SE is not None:
            return means_SE if len(ending) == len(means_SE) else means_SE.index_select(0, self._index(ending))
        starts = batch.query_starts
        is_last = self._facts.pooling is PoolingType.LAST
        places = [starts[i + 1] - 1 if is_last else starts[i] for i in ending]
        return hidden_TE.index_select(0, self._index(places))

    def _add_means(self, batch: StepBatch, states: list[_Open], hidden_TE: torch.Tensor) -> torch.Tensor:
        """Means [S, E], float32, of each sequence up to here; kept as sums for those that go on."""
        lengths_S = upload(batch.num_tokens, torch.int64, self._device)
        own_TE = hidden_TE[: batch.total_tokens].float()
        sums_SE = torch.segment_reduce(own_TE, "sum", lengths=lengths_S, unsafe=True)
        ends = set(batch.sampling)
        for i, state in enumerate(states):
            if state.sum_E is not None:
                sums_SE[i] += state.sum_E
            if i not in ends:
                state.sum_E = sums_SE[i].clone()
        counts_S1 = upload(batch.view.lengths, torch.float32, self._device)[:, None]
        return sums_SE / counts_S1

    def _finish(
        self,
        batch: StepBatch,
        states: list[_Open],
        ending: list[int],
        answers_RN: torch.Tensor,
        result: StepResult,
    ) -> None:
        """Activate and send away, those with the same wishes together."""
        groups: dict[tuple[int | None, bool], list[int]] = {}
        for place, i in enumerate(ending):
            params = states[i].params
            groups.setdefault((params.dimensions, params.use_activation is not False), []).append(place)
        for (dimensions, activates), places in groups.items():
            own_RN = (
                answers_RN if len(places) == len(ending) else answers_RN.index_select(0, self._index(places))
            )
            rows = [batch.rows[ending[place]] for place in places]
            result.pending_numbers.append(
                PendingNumbers(rows, self._activated(own_RN, dimensions, activates))
            )

    def _take_tokens(self, state: _Open, hidden_TE: torch.Tensor) -> None:
        activates = state.params.use_activation is not False
        state.pieces_TN.append(
            self._activated(self._answer(hidden_TE), state.params.dimensions, activates).clone()
        )

    def _activated(self, answers_RN: torch.Tensor, dimensions: int | None, activates: bool) -> torch.Tensor:
        if dimensions is not None:
            answers_RN = answers_RN[:, :dimensions]
        if not activates:
            return answers_RN
        if self._facts.normalizes:
            return functional.normalize(answers_RN, dim=-1)
        if self._facts.activation is Activation.SIGMOID:
            return answers_RN.sigmoid()
        return answers_RN.softmax(-1) if self._facts.activation is Activation.SOFTMAX else answers_RN

    def _index(self, places: Sequence[int]) -> torch.Tensor:
        return upload(places, torch.int64, self._device)
