"""Self-attention with grouped heads: the one layer that calls an attention backend.

T tokens, E width, H query heads, K KV heads, D head width.
"""

from __future__ import annotations

import torch
from torch import nn

from octavo.attention.contract import Attend
from octavo.layers.linear import Linear
from octavo.layers.rope import Rotation
from octavo.layers.slot import WeightSlot
from octavo.ops.rope import rope


class SelfAttention(nn.Module):
    """`layer` is this layer's number among the model's attention layers."""

    def __init__(
        self,
        layer: int,
        width: int,
        *,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        bias: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.layer = layer
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        self.head_dim = head_dim
        self.scale = head_dim**-0.5
        q, kv = num_heads * head_dim, num_kv_heads * head_dim
        self.qkv = Linear(width, [q, kv, kv], bias=bias, dtype=dtype, device=device)
        self.out = Linear(q, [width], bias=bias, dtype=dtype, device=device)
        self._rope = rope.on(device)

    def forward(self, x_TE: torch.Tensor, rotation: Rotation, attend: Attend) -> torch.Tensor:
        heads = self.qkv.forward(x_TE).view(len(x_TE), -1, self.head_dim)
        num_rotated = self.num_heads + self.num_kv_heads
        rotated = self._rope(heads[:, :num_rotated], rotation.cos_T1D, rotation.sin_T1D)
        mixed = attend(
            self.layer,
            rotated[:, : self.num_heads],
            rotated[:, self.num_heads :],
            heads[:, num_rotated:],
            self.scale,
        )
        return self.out.forward(mixed)

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.qkv.slots(f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj"),
            *self.out.slots(f"{name}.o_proj"),
        ]
