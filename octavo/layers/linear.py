"""Linear: one product for one or several matrices of a checkpoint that share their input.

T tokens, I input width, O output width.

Weights are stored transposed, [I, O], and side by side. That costs a copy at load (0.2 s for 135 M
parameters) where the file's own layout could have been mapped, and pays at once: for the default model's
shapes a layer's products take 0.93 of the time at one token, 0.59 at 8 and 0.47 at 32, measured by
benchmarks/linear_layout.py (results/2026-11-22-first-light).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import nn

from octavo.layers.slot import WeightSlot


class Linear(nn.Module):
    """x @ W + b for matrices of `out_features` rows each, all fed from the same input."""

    def __init__(
        self,
        in_features: int,
        out_features: Sequence[int],
        *,
        bias: bool = False,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.ends = list(accumulate(out_features))
        weight_IO = torch.empty(in_features, self.ends[-1], dtype=dtype, device=device)
        self.weight_IO = nn.Parameter(weight_IO, requires_grad=False)
        bias_O = torch.empty(self.ends[-1], dtype=dtype, device=device) if bias else None
        self.bias_O = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)

    def forward(self, x_TI: torch.Tensor) -> torch.Tensor:
        if self.bias_O is None:
            return x_TI @ self.weight_IO
        return torch.addmm(self.bias_O, x_TI, self.weight_IO)

    def slots(self, *names: str) -> list[WeightSlot]:
        """Where the tensors `name.weight` (and `name.bias`) of each matrix go."""
        slots: list[WeightSlot] = []
        starts = [0, *self.ends[:-1]]
        for name, start, end in zip(names, starts, self.ends, strict=True):
            slots.append(WeightSlot(name=f"{name}.weight", target=self.weight_IO[:, start:end].t()))
            if self.bias_O is not None:
                slots.append(WeightSlot(name=f"{name}.bias", target=self.bias_O[start:end]))
        return slots
