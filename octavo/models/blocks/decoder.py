"""The decoder layer most families share: attention and gated MLP, each behind a norm and a residual.

T tokens, E width.
"""

from __future__ import annotations

import torch
from torch import nn

from octavo.attention.contract import Attend
from octavo.layers.attention import SelfAttention
from octavo.layers.mlp import GatedMLP
from octavo.layers.norm import RMSNorm
from octavo.layers.rope import Rotation
from octavo.layers.slot import WeightSlot
from octavo.models.decoder_config import DecoderConfig


class DecoderLayer(nn.Module):
    def __init__(
        self, layer: int, config: DecoderConfig, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.rms_norm_eps
        self.attention_norm = RMSNorm(width, epsilon=epsilon, dtype=dtype, device=device)
        self.attention = SelfAttention(
            layer,
            width,
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            bias=config.attention_bias,
            dtype=dtype,
            device=device,
        )
        self.mlp_norm = RMSNorm(width, epsilon=epsilon, dtype=dtype, device=device)
        self.mlp = GatedMLP(width, config.intermediate_size, bias=config.mlp_bias, dtype=dtype, device=device)

    def forward(self, x_TE: torch.Tensor, rotation: Rotation, attend: Attend) -> torch.Tensor:
        x_TE = x_TE + self.attention.forward(self.attention_norm.forward(x_TE), rotation, attend)
        return x_TE + self.mlp.forward(self.mlp_norm.forward(x_TE))

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.attention_norm.slots(f"{name}.input_layernorm"),
            *self.attention.slots(f"{name}.self_attn"),
            *self.mlp_norm.slots(f"{name}.post_attention_layernorm"),
            *self.mlp.slots(f"{name}.mlp"),
        ]
