"""NativeForward: from a step's numbers to hidden states in one call. T tokens, E width."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from octavo.attention.backends.native import page_tables_struct, tokens_struct
from octavo.attention.step_view import HostView
from octavo.models.llama import LlamaForCausalLM
from octavo.models.native_layers import native_layers, norm_struct
from octavo.ops.cpu.engine import NativeEngine
from octavo.ops.cpu.structs import PageTablesStruct
from octavo.worker.extras.contract import GivenInputs
from octavo.worker.forward import Forward
from octavo.worker.row_states import RowStates
from octavo.worker.step_attention import PagedSteps
from octavo.worker.step_buffers import StepBounds, StepBuffers


class NativeForward(Forward):
    """Python per operation would cost more than the operation when few tokens are computed."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        native: NativeEngine,
        attention: PagedSteps,
        states: RowStates,
        buffers: StepBuffers,
    ) -> None:
        super().__init__(model, attention, states, buffers)
        kv = attention.kv
        self._decoder = model
        self._native = native
        self._layers = native_layers(model, kv.pages, kv.layouts, kv.groups)
        self._last_norm = norm_struct(model.norm)

    def run_bounded(
        self, bounds: StepBounds, host: HostView | None, given: Sequence[GivenInputs] = ()
    ) -> torch.Tensor:
        buffers, num_tokens = self._buffers, bounds.num_tokens
        buffers.gather(num_tokens)
        views = buffers.views(bounds, host)
        token_ids_T = buffers.token_ids_T[:num_tokens]
        x_TE = self._inputs(token_ids_T, given) if given else self._decoder.embed(token_ids_T)
        tables = (PageTablesStruct * len(views))(*(page_tables_struct(view) for view in views))
        return self._native.step(
            self._layers, tokens_struct(views[0]), tables, self._decoder.first_inputs(x_TE), self._last_norm
        )
