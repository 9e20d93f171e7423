"""MLPs: the gated one of most decoders, the plain one of older ones. T tokens, E width, F inner width."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch
from torch import nn

from octavo.layers.activations import ACTIVATIONS
from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.norm import Norm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.ops.activation import gated_gelu, gated_gelu_erf


class Gate(StrEnum):
    SILU = "silu"
    """Computed by the product, which may fuse it."""
    GELU_TANH = "gelu_pytorch_tanh"
    """An op of its own behind the product, as the next one."""
    GELU = "gelu"
    """By the error function."""


_GATES = {Gate.GELU_TANH: gated_gelu, Gate.GELU: gated_gelu_erf}


class GatedMLP(nn.Module):
    """x + down(silu(gate(norm(x))) * up(norm(x))), or another gate instead of silu"""

    def __init__(
        self, width: int, inner: int, *, bias: bool, gate: Gate = Gate.SILU, placement: Placement
    ) -> None:
        super().__init__()
        self._gate = _GATES[gate].on(placement.device) if gate in _GATES else None
        self.gate_up = Linear(width, [inner, inner], bias=bias, placement=placement)
        self.down = Linear(inner, [width], bias=bias, placement=placement)

    def forward(
        self, stream: Residual, norm: Norm | None, post_norm: Norm | Factor | None = None
    ) -> Residual:
        stream, inner_TF = self.gate_up.from_stream(stream, norm, is_gated=self._gate is None)
        if self._gate is not None:
            inner_TF = self._gate(inner_TF)
        return self.down.onto_stream(stream, inner_TF, post_norm)

    def onto(self, stream: Residual, x_TE: torch.Tensor) -> Residual:
        """stream + down(gate(x) * up(x)): for layers whose branches do not start at the stream."""
        _, inner_TF = self.gate_up.from_stream(Residual(x_TE), None, is_gated=self._gate is None)
        return self.down.onto_stream(stream, inner_TF if self._gate is None else self._gate(inner_TF))

    def slots(self, name: str, gate_up: Sequence[str] = ("gate_proj", "up_proj")) -> list[WeightSlot]:
        """gate_up: one name where the checkpoint holds both as one matrix."""
        return [
            *self.gate_up.slots(*(f"{name}.{part}" for part in gate_up)),
            *self.down.slots(f"{name}.down_proj"),
        ]


class PlainMLP(nn.Module):
    """x + down(activation(up(norm(x))))"""

    def __init__(self, width: int, inner: int, *, bias: bool, activation: str, placement: Placement) -> None:
        """activation: one of ACTIVATIONS."""
        super().__init__()
        self._activation = activation
        self.up = Linear(width, [inner], bias=bias, placement=placement)
        self.down = Linear(inner, [width], bias=bias, placement=placement)

    def forward(self, stream: Residual, norm: Norm | None) -> Residual:
        if norm is None:
            return self.onto(stream, stream.total())
        stream, inner_TF = self.up.from_stream(stream, norm)
        return self.down.onto_stream(stream, ACTIVATIONS[self._activation](inner_TF))

    def onto(self, stream: Residual, x_TE: torch.Tensor) -> Residual:
        """stream + down(activation(up(x)))"""
        return self.down.onto_stream(stream, self.up.activated(x_TE, self._activation))
