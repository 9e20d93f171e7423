"""Forward: from a step's numbers to hidden states, one operation after the other. T tokens, E width."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from octavo.attention.step_view import HostView
from octavo.layers.recurrent import RecurrentStep
from octavo.models.contract import Backbone, ModelInput
from octavo.worker.extras.contract import GivenInputs
from octavo.worker.row_states import RowStates
from octavo.worker.step_attention import AttentionSteps
from octavo.worker.step_batch import StepBatch
from octavo.worker.step_buffers import StepBounds, StepBuffers


class Forward:
    """Runs the model on whatever the buffers hold."""

    def __init__(
        self, model: Backbone, attention: AttentionSteps, states: RowStates, buffers: StepBuffers
    ) -> None:
        self.long_prompt = attention.long_prompt
        """From how many tokens on whole prompts come last in a step."""
        self._model = model
        self._attention = attention
        self._states = states
        self._buffers = buffers

    def run(self, batch: StepBatch, given: Sequence[GivenInputs] = ()) -> torch.Tensor:
        """Hidden states [T, E] of a step whose numbers are loaded."""
        num_tokens = self._buffers.rounded(batch.total_tokens, self._attention.multiple)
        bounds = StepBounds.of(batch)._replace(num_tokens=num_tokens)
        return self.run_bounded(bounds, batch.view, given)

    def run_bounded(
        self, bounds: StepBounds, host: HostView | None, given: Sequence[GivenInputs] = ()
    ) -> torch.Tensor:
        """The same for at most so many; `host` is None while a graph is captured."""
        buffers, num_tokens = self._buffers, bounds.num_tokens
        buffers.gather(num_tokens)
        attend = self._attention.plan(bounds, host)
        token_ids_T = buffers.token_ids_T[:num_tokens]
        return self._model.forward(
            ModelInput(
                token_ids_T=token_ids_T,
                positions_T=buffers.positions_T[:num_tokens],
                attend=attend,
                recur=RecurrentStep(rows=buffers.step_rows(bounds), states=self._states.by_layer),
                inputs_TE=self._inputs(token_ids_T, given) if given else None,
            )
        )

    def _inputs(self, token_ids_T: torch.Tensor, given: Sequence[GivenInputs]) -> torch.Tensor:
        """What the ids look up, with the given vectors in their places."""
        inputs_TE = self._model.embed(token_ids_T)
        for start, vectors_NE in given:
            inputs_TE[start : start + len(vectors_NE)].copy_(vectors_NE)
        return inputs_TE
