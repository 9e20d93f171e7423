"""The MLP of older decoders, without a gate. T tokens, E width, F inner width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from octavo.layers.linear import Linear
from octavo.layers.norm import Norm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual

Activation = Callable[[torch.Tensor], torch.Tensor]

_TANH_GELU: Activation = partial(functional.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Activation] = {
    "gelu": functional.gelu,
    "gelu_fast": _TANH_GELU,
    "gelu_new": _TANH_GELU,
    "gelu_pytorch_tanh": _TANH_GELU,
    "relu": functional.relu,
    "relu2": lambda x: functional.relu(x).square(),
    "silu": functional.silu,
}
"""By the name that configs give them. Three of the names say one formula."""


class PlainMLP(nn.Module):
    """x + down(activation(up(norm(x))))"""

    def __init__(self, width: int, inner: int, *, bias: bool, activation: str, placement: Placement) -> None:
        """activation: one of ACTIVATIONS."""
        super().__init__()
        self._activation = ACTIVATIONS[activation]
        self.up = Linear(width, [inner], bias=bias, placement=placement)
        self.down = Linear(inner, [width], bias=bias, placement=placement)

    def forward(self, stream: Residual, norm: Norm | None) -> Residual:
        stream, inner_TF = self.up.from_stream(stream, norm)
        return self.down.onto_stream(stream, self._activation(inner_TF))

    def onto(self, stream: Residual, x_TE: torch.Tensor) -> Residual:
        """stream + down(activation(up(x)))"""
        return self.down.onto_stream(stream, self._activation(self.up.forward(x_TE)))
