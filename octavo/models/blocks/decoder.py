"""The decoder layer most families share: attention and MLP, each behind a norm and a residual.

T tokens, E width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from octavo.attention.contract import Attend
from octavo.layers.attention import HeadNorms, HeadShape, SelfAttention
from octavo.layers.mlp import MLP
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.models.decoder_config import DecoderConfig
from octavo.ops.paged_plain import AttentionTerms


@dataclass(frozen=True, kw_only=True)
class LayerPlace:
    """One layer among the others."""

    index: int
    window: int | None
    rotation_PD: torch.Tensor | None
    placement: Placement


class DecoderLayer(nn.Module):
    def __init__(
        self,
        index: int,
        mlp: MLP,
        config: DecoderConfig,
        *,
        window: int | None,
        has_head_norms: bool,
        has_qkv_bias: bool,
        rotation_PD: torch.Tensor | None,
        placement: Placement,
    ) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.rms_norm_eps
        self.attention_norm = RMSNorm(width, epsilon=epsilon, placement=placement)
        self.attention = SelfAttention(
            index,
            width,
            HeadShape(num_heads=config.num_heads, num_kv_heads=config.num_kv_heads, head_dim=config.head_dim),
            has_qkv_bias=has_qkv_bias,
            has_out_bias=config.attention_bias,
            terms=AttentionTerms(scale=config.head_dim**-0.5, window=window),
            norms=HeadNorms(epsilon=epsilon) if has_head_norms else None,
            rotation_PD=rotation_PD,
            placement=placement,
        )
        self.mlp_norm = RMSNorm(width, epsilon=epsilon, placement=placement)
        self.mlp = mlp

    def forward(self, stream: Residual, attend: Attend) -> Residual:
        stream = self.attention.forward(stream, self.attention_norm, attend)
        return self.mlp.forward(stream, self.mlp_norm)

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.attention_norm.slots(f"{name}.input_layernorm"),
            *self.attention.slots(f"{name}.self_attn"),
            *self.mlp_norm.slots(f"{name}.post_attention_layernorm"),
            *self.mlp.slots(name),
        ]
