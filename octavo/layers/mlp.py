"""The gated MLP of most decoders. T tokens, E width, F inner width."""

from __future__ import annotations

from torch import nn

from octavo.layers.linear import Linear
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot


class GatedMLP(nn.Module):
    """x + down(silu(gate(norm(x))) * up(norm(x)))"""

    def __init__(self, width: int, inner: int, *, bias: bool, placement: Placement) -> None:
        super().__init__()
        self.gate_up = Linear(width, [inner, inner], bias=bias, placement=placement)
        self.down = Linear(inner, [width], bias=bias, placement=placement)

    def forward(self, stream: Residual, norm: RMSNorm) -> Residual:
        stream, inner_TF = self.gate_up.from_stream(stream, norm, is_gated=True)
        return self.down.onto_stream(stream, inner_TF)

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.gate_up.slots(f"{name}.gate_proj", f"{name}.up_proj"),
            *self.down.slots(f"{name}.down_proj"),
        ]
