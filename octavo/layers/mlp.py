"""The gated MLP of most decoders. T tokens, E width, F inner width."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch
from torch import nn

from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.norm import Norm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.ops.activation import gated_gelu, gated_gelu_erf


class MLP(Protocol):
    """The second branch of a decoder layer, handed to it when it is built; an nn.Module."""

    def forward(
        self, stream: Residual, norm: Norm | None, post_norm: Norm | Factor | None = None
    ) -> Residual:
        """x + post_norm(mlp(norm(x))), with each norm only where it is given."""

    def slots(self, layer: str) -> list[WeightSlot]:
        """`layer` is what the checkpoint calls the layer; the MLP knows its own name within."""


class Gate(StrEnum):
    SILU = "silu"
    """Computed by the product, which may fuse it."""
    GELU_TANH = "gelu_pytorch_tanh"
    """An op of its own behind the product, as the next one."""
    GELU = "gelu"
    """By the error function."""


_GATES = {Gate.GELU_TANH: gated_gelu, Gate.GELU: gated_gelu_erf}


@dataclass(frozen=True, kw_only=True)
class MLPNames:
    """What checkpoints call an MLP within its layer, and its matrices."""

    own: str = "mlp"
    gate_up: tuple[str, ...] = ("gate_proj", "up_proj")
    """One name where the checkpoint holds both as one matrix."""
    down: str = "down_proj"


class GatedMLP(nn.Module):
    """x + down(silu(gate(norm(x))) * up(norm(x))), or another gate instead of silu"""

    def __init__(
        self,
        width: int,
        inner: int,
        *,
        bias: bool,
        has_down_bias: bool | None = None,
        gate: Gate = Gate.SILU,
        names: MLPNames | None = None,
        placement: Placement,
    ) -> None:
        """has_down_bias None: as the others."""
        super().__init__()
        self.names = names or MLPNames()
        self.gate = gate
        self._gate = _GATES[gate].on(placement.device) if gate in _GATES else None
        self.gate_up = Linear(width, [inner, inner], bias=bias, placement=placement)
        has_down_bias = bias if has_down_bias is None else has_down_bias
        self.down = Linear(inner, [width], bias=has_down_bias, placement=placement)

    def forward(
        self, stream: Residual, norm: Norm | None, post_norm: Norm | Factor | None = None
    ) -> Residual:
        stream, inner_TF = self._inner(stream, norm)
        return self.down.onto_stream(stream, inner_TF, post_norm)

    def onto(self, stream: Residual, x_TE: torch.Tensor) -> Residual:
        """The MLP on x, which is no part of the stream, added to it."""
        return self.down.onto_stream(stream, self._inner(Residual(x_TE), None)[1])

    def branch(self, x_TE: torch.Tensor) -> torch.Tensor:
        """The MLP on x alone: [T, E]."""
        return self.down.forward(self._inner(Residual(x_TE), None)[1])

    def _inner(self, stream: Residual, norm: Norm | None) -> tuple[Residual, torch.Tensor]:
        stream, inner_TF = self.gate_up.from_stream(stream, norm, is_gated=self._gate is None)
        return stream, inner_TF if self._gate is None else self._gate(inner_TF)

    def slots(self, layer: str) -> list[WeightSlot]:
        name = f"{layer}.{self.names.own}"
        return [
            *self.gate_up.slots(*(f"{name}.{part}" for part in self.names.gate_up)),
            *self.down.slots(f"{name}.{self.names.down}"),
        ]
