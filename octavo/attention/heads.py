"""Heads: from a layer's raw projections to queries, keys and values that can attend.

T tokens, O = (H + 2 K) * D for H query heads and K KV heads of width D.
"""

from __future__ import annotations

import torch

from octavo.attention.contract import AttentionLayer, Pages
from octavo.attention.step_view import StepView
from octavo.ops.heads import prepare_heads


class Heads:
    """The op for one device."""

    def __init__(self, device: torch.device) -> None:
        self._prepare_heads = prepare_heads.on(device)

    def prepare(
        self, layer: AttentionLayer, qkv_TO: torch.Tensor, view: StepView, pages: Pages
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[T, H, D], [T, K, D], [T, K, D]: normed and rotated in place; pages are written."""
        self._prepare_heads(
            qkv_TO,
            view.positions_T,
            view.slots_T,
            layer.rotation_PD,
            layer.q_norm_D,
            layer.k_norm_D,
            layer.norm_epsilon,
            pages.keys_BKND,
            pages.values_BKND,
            layer.num_heads,
        )
        heads = qkv_TO.view(len(qkv_TO), -1, layer.head_dim)
        first_value = layer.num_heads + layer.num_kv_heads
        return heads[:, : layer.num_heads], heads[:, layer.num_heads : first_value], heads[:, first_value:]
