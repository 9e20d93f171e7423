"""A number that a branch is multiplied with before the stream takes it. T tokens, E width."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Factor:
    value: float

    def forward(self, y_TE: torch.Tensor) -> torch.Tensor:
        return y_TE * self.value
