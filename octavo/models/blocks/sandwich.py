"""A decoder layer whose branches may end with a norm as well as begin with one, gated by gelu: Gemma's.

T tokens, E width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from octavo.attention.contract import Attend
from octavo.layers.attention import HeadNorms, HeadShape, SelfAttention
from octavo.layers.mlp import Gate, GatedMLP
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.models.decoder_config import DecoderConfig
from octavo.ops.paged_plain import AttentionTerms

NORM_OFFSET = 1.0
"""Norms scale by 1 + w."""


@dataclass(frozen=True, kw_only=True)
class LayerTerms:
    """What differs between the layers of one model."""

    attention: AttentionTerms
    rotation_PD: torch.Tensor


class SandwichLayer(nn.Module):
    def __init__(
        self,
        index: int,
        config: DecoderConfig,
        terms: LayerTerms,
        *,
        has_head_norms: bool,
        has_post_norms: bool,
        placement: Placement,
    ) -> None:
        super().__init__()
        epsilon = config.rms_norm_eps

        def norm() -> RMSNorm:
            return RMSNorm(config.hidden_size, epsilon=epsilon, offset=NORM_OFFSET, placement=placement)

        self.attention_norm, self.mlp_norm = norm(), norm()
        self.attention_post_norm = norm() if has_post_norms else None
        self.mlp_post_norm = norm() if has_post_norms else None
        self.attention = SelfAttention(
            index,
            config.hidden_size,
            HeadShape(num_heads=config.num_heads, num_kv_heads=config.num_kv_heads, head_dim=config.head_dim),
            has_qkv_bias=config.attention_bias,
            has_out_bias=config.attention_bias,
            terms=terms.attention,
            norms=HeadNorms(epsilon=epsilon, offset=NORM_OFFSET) if has_head_norms else None,
            rotation_PD=terms.rotation_PD,
            placement=placement,
        )
        self.mlp = GatedMLP(
            config.hidden_size,
            config.intermediate_size,
            bias=config.mlp_bias,
            gate=Gate.GELU_TANH,
            placement=placement,
        )

    def forward(self, stream: Residual, attend: Attend) -> Residual:
        stream = self.attention.forward(stream, self.attention_norm, attend, self.attention_post_norm)
        return self.mlp.forward(stream, self.mlp_norm, self.mlp_post_norm)

    def slots(self, name: str) -> list[WeightSlot]:
        slots = [
            *self.attention_norm.slots(f"{name}.input_layernorm"),
            *self.attention.slots(f"{name}.self_attn"),
            *self.mlp.slots(f"{name}.mlp"),
        ]
        if self.attention_post_norm is None or self.mlp_post_norm is None:
            return slots + self.mlp_norm.slots(f"{name}.post_attention_layernorm")
        return [
            *slots,
            *self.attention_post_norm.slots(f"{name}.post_attention_layernorm"),
            *self.mlp_norm.slots(f"{name}.pre_feedforward_layernorm"),
            *self.mlp_post_norm.slots(f"{name}.post_feedforward_layernorm"),
        ]
