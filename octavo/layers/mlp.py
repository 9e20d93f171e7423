"""The gated MLP of most decoders. T tokens, E width, F inner width."""

from __future__ import annotations

import torch
from torch import nn

from octavo.layers.linear import Linear
from octavo.layers.slot import WeightSlot
from octavo.ops.activation import gated_silu


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x))"""

    def __init__(
        self, width: int, inner: int, *, bias: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__()
        self.gate_up = Linear(width, [inner, inner], bias=bias, dtype=dtype, device=device)
        self.down = Linear(inner, [width], bias=bias, dtype=dtype, device=device)
        self._gated_silu = gated_silu.on(device)

    def forward(self, x_TE: torch.Tensor) -> torch.Tensor:
        return self.down.forward(self._gated_silu(self.gate_up.forward(x_TE)))

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.gate_up.slots(f"{name}.gate_proj", f"{name}.up_proj"),
            *self.down.slots(f"{name}.down_proj"),
        ]
