"""RMSNorm. T tokens, E width."""

from __future__ import annotations

import torch
from torch import nn

from octavo.layers.slot import WeightSlot
from octavo.ops.norm import rms_norm


class RMSNorm(nn.Module):
    def __init__(self, width: int, *, epsilon: float, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight_E = nn.Parameter(torch.empty(width, dtype=dtype, device=device), requires_grad=False)
        self._rms_norm = rms_norm.on(device)

    def forward(self, x_TE: torch.Tensor) -> torch.Tensor:
        return self._rms_norm(x_TE, self.weight_E, self.epsilon)

    def slots(self, name: str) -> list[WeightSlot]:
        return [WeightSlot(name=f"{name}.weight", target=self.weight_E)]
