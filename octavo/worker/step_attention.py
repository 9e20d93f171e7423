"""Attention for one step: planned once, then called by every layer. T tokens."""

from __future__ import annotations

from typing import Protocol

import torch

from octavo.attention.contract import Attend, AttentionBackend, AttentionLayer
from octavo.attention.packed import PackedAttention
from octavo.attention.step_view import HostView, StepView
from octavo.layers.wide_product import ROWS_MULTIPLE
from octavo.worker.kv_tensors import KVTensors
from octavo.worker.step_buffers import StepBounds, StepBuffers


class AttentionSteps(Protocol):
    """Plans the attention of each step, from the numbers that its buffers hold."""

    long_prompt: int | None
    """From how many tokens on whole prompts come last in a step."""
    multiple: int
    """To which the number of a step's tokens is rounded up, with tokens that belong to nobody."""

    def plan(self, bounds: StepBounds, host: HostView | None) -> Attend:
        """`host` is None while a graph is captured."""


class PagedSteps:
    """Of models that keep keys and values (or a state): one plan for each KV group."""

    def __init__(self, backends: list[AttentionBackend], kv: KVTensors, buffers: StepBuffers) -> None:
        self.long_prompt = _long_prompt(backends)
        self.multiple = 1
        self.turns_keys = any(layout.turns_keys for layout in kv.layouts)
        """As the native kernels want them."""
        self.kv = kv
        self._backends = backends
        self._buffers = buffers

    def plan(self, bounds: StepBounds, host: HostView | None) -> Attend:
        return StepAttention(self._backends, self.kv, self._buffers.views(bounds, host))


class PackedSteps:
    """Of models that keep nothing: whole texts, all of whose tokens see each other."""

    long_prompt: int | None = None
    multiple = ROWS_MULTIPLE

    def __init__(self, buffers: StepBuffers) -> None:
        self._buffers = buffers

    def plan(self, bounds: StepBounds, host: HostView | None) -> Attend:
        assert host is not None, "steps without a cache are not captured"
        return PackedAttention(host, self._buffers.positions_T[: bounds.num_tokens])


class StepAttention:
    """What the model's layers call in one step."""

    def __init__(self, backends: list[AttentionBackend], kv: KVTensors, views: list[StepView]) -> None:
        """`backends` and `views` have one entry per KV group."""
        self._plans = [backend.plan(view) for backend, view in zip(backends, views, strict=True)]
        self._kv = kv

    def __call__(self, layer: AttentionLayer, qkv_TO: torch.Tensor) -> torch.Tensor:
        kv = self._kv
        return self._plans[kv.groups[layer.index]].run(layer, qkv_TO, kv.pages[layer.index])


def _long_prompt(backends: list[AttentionBackend]) -> int | None:
    """Only if all KV groups want them apart."""
    wishes = [backend.long_prompt for backend in backends]
    known = [wish for wish in wishes if wish is not None]
    return max(known, default=None) if len(known) == len(wishes) else None
