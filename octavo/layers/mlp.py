"""The gated MLP of most decoders. T tokens, E width, F inner width."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from torch import nn

from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.ops.activation import gated_gelu


class Gate(StrEnum):
    SILU = "silu"
    """Computed by the product, which may fuse it."""
    GELU_TANH = "gelu_pytorch_tanh"
    """An op of its own behind the product."""


class GatedMLP(nn.Module):
    """x + down(silu(gate(norm(x))) * up(norm(x))), or another gate instead of silu"""

    def __init__(
        self, width: int, inner: int, *, bias: bool, gate: Gate = Gate.SILU, placement: Placement
    ) -> None:
        super().__init__()
        self.gate = gate
        self._gate = gated_gelu.on(placement.device) if gate is Gate.GELU_TANH else None
        self.gate_up = Linear(width, [inner, inner], bias=bias, placement=placement)
        self.down = Linear(inner, [width], bias=bias, placement=placement)

    def forward(
        self, stream: Residual, norm: RMSNorm | None, post_norm: RMSNorm | Factor | None = None
    ) -> Residual:
        stream, inner_TF = self.gate_up.from_stream(stream, norm, is_gated=self._gate is None)
        if self._gate is not None:
            inner_TF = self._gate(inner_TF)
        return self.down.onto_stream(stream, inner_TF, post_norm)

    def slots(self, name: str, gate_up: Sequence[str] = ("gate_proj", "up_proj")) -> list[WeightSlot]:
        """gate_up: one name where the checkpoint holds both as one matrix."""
        return [
            *self.gate_up.slots(*(f"{name}.{part}" for part in gate_up)),
            *self.down.slots(f"{name}.down_proj"),
        ]
