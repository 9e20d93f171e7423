"""Attention for one step: plans once per KV group, then serves every layer. T tokens."""

from __future__ import annotations

import torch

from octavo.attention.contract import AttentionBackend, AttentionLayer
from octavo.attention.step_view import StepView
from octavo.worker.kv_tensors import KVTensors


class StepAttention:
    """What the model's layers call in one step."""

    def __init__(self, backends: list[AttentionBackend], kv: KVTensors, views: list[StepView]) -> None:
        """`backends` and `views` have one entry per KV group."""
        self._plans = [backend.plan(view) for backend, view in zip(backends, views, strict=True)]
        self._kv = kv

    def __call__(self, layer: AttentionLayer, qkv_TO: torch.Tensor) -> torch.Tensor:
        kv = self._kv
        return self._plans[kv.groups[layer.index]].run(layer, qkv_TO, kv.pages[layer.index])
