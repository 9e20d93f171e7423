"""Self-attention with grouped heads: the one layer that calls an attention backend.

T tokens, E width, O = (H + 2 K) * D for H query heads and K KV heads of width D.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from octavo.attention.contract import Attend, AttentionLayer
from octavo.layers.linear import Linear
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.ops.paged_plain import AttentionTerms


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    num_heads: int
    num_kv_heads: int
    head_dim: int


class SelfAttention(nn.Module):
    """`index` is this layer's number among the model's attention layers."""

    def __init__(
        self,
        index: int,
        width: int,
        heads: HeadShape,
        *,
        has_qkv_bias: bool,
        has_out_bias: bool,
        window: int | None = None,
        norm_epsilon: float | None = None,
        rotation_PD: torch.Tensor | None,
        placement: Placement,
    ) -> None:
        """norm_epsilon: queries and keys are normalised per head (Qwen3); None: they are not."""
        super().__init__()
        q, kv = heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
        self.qkv = Linear(width, [q, kv, kv], bias=has_qkv_bias, placement=placement)
        self.out = Linear(q, [width], bias=has_out_bias, placement=placement)
        self.q_norm = self.k_norm = None
        if norm_epsilon is not None:
            self.q_norm = RMSNorm(heads.head_dim, epsilon=norm_epsilon, placement=placement)
            self.k_norm = RMSNorm(heads.head_dim, epsilon=norm_epsilon, placement=placement)
        self.layer = AttentionLayer(
            index=index,
            num_heads=heads.num_heads,
            num_kv_heads=heads.num_kv_heads,
            head_dim=heads.head_dim,
            terms=AttentionTerms(scale=heads.head_dim**-0.5, window=window),
            rotation_PD=rotation_PD,
            q_norm_D=None if self.q_norm is None else self.q_norm.weight_E,
            k_norm_D=None if self.k_norm is None else self.k_norm.weight_E,
            norm_epsilon=norm_epsilon or 0.0,
        )

    def forward(self, stream: Residual, norm: RMSNorm, attend: Attend) -> Residual:
        """x + out(attention(qkv(norm(x))))"""
        stream, qkv_TO = self.qkv.from_stream(stream, norm)
        return self.out.onto_stream(stream, attend(self.layer, qkv_TO))

    def slots(self, name: str) -> list[WeightSlot]:
        slots = [
            *self.qkv.slots(f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"),
            *self.out.slots(f"{name}.o_proj"),
        ]
        if self.q_norm is not None and self.k_norm is not None:
            slots += [*self.q_norm.slots(f"{name}.q_norm"), *self.k_norm.slots(f"{name}.k_norm")]
        return slots
