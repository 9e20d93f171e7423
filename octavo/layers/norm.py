"""RMSNorm and LayerNorm. T tokens, E width."""

from __future__ import annotations

import torch
from torch import nn

from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.ops.layer_norm import add_layer_norm, layer_norm
from octavo.ops.norm import add_rms_norm, rms_norm


class RMSNorm(nn.Module):
    """offset: what is added to the checkpoint's weights, in float32."""

    def __init__(self, width: int, *, epsilon: float, offset: float = 0.0, placement: Placement) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.offset = offset
        weight_E = placement.empty(width)
        self.weight_E = nn.Parameter(weight_E.float() if offset else weight_E, requires_grad=False)
        self._rms_norm = rms_norm.on(placement.device)
        self._add_rms_norm = add_rms_norm.on(placement.device)

    def forward(self, x_TE: torch.Tensor) -> torch.Tensor:
        return self._rms_norm(x_TE, self.weight_E, self.epsilon)

    def add(self, x_TE: torch.Tensor, delta_TE: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """x + delta (the residual stream goes on with it) and its norm. No delta: before the first layer."""
        if delta_TE is None:
            return x_TE, self.forward(x_TE)
        return self._add_rms_norm(x_TE, delta_TE, self.weight_E, self.epsilon)

    def slots(self, name: str) -> list[WeightSlot]:
        return [WeightSlot(name=f"{name}.weight", target=self.weight_E, offset=self.offset)]


class LayerNorm(nn.Module):
    """offset: what is added to the checkpoint's weights (not to the bias), in float32."""

    def __init__(
        self, width: int, *, epsilon: float, has_bias: bool = True, offset: float = 0.0, placement: Placement
    ) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.offset = offset
        weight_E = placement.empty(width)
        self.weight_E = nn.Parameter(weight_E.float() if offset else weight_E, requires_grad=False)
        self.bias_E = nn.Parameter(placement.empty(width), requires_grad=False) if has_bias else None
        self._layer_norm = layer_norm.on(placement.device)
        self._add_layer_norm = add_layer_norm.on(placement.device)

    def forward(self, x_TE: torch.Tensor) -> torch.Tensor:
        return self._layer_norm(x_TE, self.weight_E, self.bias_E, self.epsilon)

    def add(self, x_TE: torch.Tensor, delta_TE: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """x + delta (the residual stream goes on with it) and its norm. No delta: before the first layer."""
        if delta_TE is None:
            return x_TE, self.forward(x_TE)
        return self._add_layer_norm(x_TE, delta_TE, self.weight_E, self.bias_E, self.epsilon)

    def slots(self, name: str) -> list[WeightSlot]:
        slots = [WeightSlot(name=f"{name}.weight", target=self.weight_E, offset=self.offset)]
        return slots if self.bias_E is None else [*slots, WeightSlot(name=f"{name}.bias", target=self.bias_E)]


Norm = RMSNorm | LayerNorm
"""What may stand between the stream and a product. A product may compute an RMSNorm itself."""
