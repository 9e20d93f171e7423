"""The MLP of older decoders, without a gate. T tokens, E width, F inner width."""

from __future__ import annotations

import torch
from torch import nn

from octavo.layers.activations import ACTIVATIONS
from octavo.layers.linear import Linear
from octavo.layers.norm import Norm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual


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
