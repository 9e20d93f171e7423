"""Stacked experts, and where checkpoints have their tensors. T tokens, E width, X experts, F inner width.

The matrices are kept as `octavo.ops.experts` reads them: G = 2 F rows, in which gate and up alternate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.ops.experts import SILU, SwiGLU, experts, experts_invariant


@dataclass(frozen=True, kw_only=True)
class ExpertShape:
    num_experts: int
    width: int
    inner: int
    has_bias: bool = False
    gate: SwiGLU = SILU


class Experts(nn.Module):
    def __init__(self, shape: ExpertShape, placement: Placement) -> None:
        super().__init__()
        count, width, inner = shape.num_experts, shape.width, shape.inner
        self.gate = shape.gate
        self.gate_up_XGE = nn.Parameter(placement.empty(count, 2 * inner, width), requires_grad=False)
        self.down_XEF = nn.Parameter(placement.empty(count, width, inner), requires_grad=False)
        self.gate_up_bias_XG = self.down_bias_XE = None
        if shape.has_bias:
            self.gate_up_bias_XG = nn.Parameter(placement.empty(count, 2 * inner), requires_grad=False)
            self.down_bias_XE = nn.Parameter(placement.empty(count, width), requires_grad=False)
        op = experts_invariant if placement.deterministic else experts
        self._experts = op.on(placement.device)

    def forward(
        self,
        x_TE: torch.Tensor,
        experts_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        added_TE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The weighted sum of each token's experts, plus `added`: [T, E]."""
        return self._experts(
            x_TE,
            experts_TK,
            weights_TK,
            self.gate_up_XGE,
            self.down_XEF,
            self.gate_up_bias_XG,
            self.down_bias_XE,
            self.gate,
            added_TE,
        )


class ExpertTensors(Protocol):
    """How a kind of checkpoint holds the experts of one layer."""

    def slots(self, name: str, weights: Experts) -> list[WeightSlot]:
        """`name` is that of the mixture."""


@dataclass(frozen=True, kw_only=True)
class OneByOne:
    """Three matrices for each expert."""

    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"

    def slots(self, name: str, weights: Experts) -> list[WeightSlot]:
        slots: list[WeightSlot] = []
        for expert, (gate_up_GE, down_EF) in enumerate(
            zip(weights.gate_up_XGE, weights.down_XEF, strict=True)
        ):
            of_expert = f"{name}.experts.{expert}"
            slots += [
                WeightSlot(name=f"{of_expert}.{self.gate}.weight", target=gate_up_GE[::2]),
                WeightSlot(name=f"{of_expert}.{self.up}.weight", target=gate_up_GE[1::2]),
                WeightSlot(name=f"{of_expert}.{self.down}.weight", target=down_EF),
            ]
        return slots


@dataclass(frozen=True, kw_only=True)
class StackedHalves:
    """Matrices of all experts in one tensor; of each first all gate rows, then all up rows."""

    gate_up: str
    down: str

    def slots(self, name: str, weights: Experts) -> list[WeightSlot]:
        num_rows = weights.gate_up_XGE.shape[1]
        order_G = torch.arange(num_rows).view(2, -1).t().flatten()
        return [
            WeightSlot(
                name=f"{name}.{self.gate_up}", target=weights.gate_up_XGE, order_R=order_G, order_dim=1
            ),
            WeightSlot(name=f"{name}.{self.down}", target=weights.down_XEF),
        ]


@dataclass(frozen=True, kw_only=True)
class StackedColumns:
    """Matrices of all experts in one tensor, inputs first; gate and up columns alternate. With biases."""

    gate_up: str = "experts.gate_up_proj"
    down: str = "experts.down_proj"

    def slots(self, name: str, weights: Experts) -> list[WeightSlot]:
        assert weights.gate_up_bias_XG is not None and weights.down_bias_XE is not None, "built with biases"
        return [
            WeightSlot(name=f"{name}.{self.gate_up}", target=weights.gate_up_XGE.transpose(1, 2)),
            WeightSlot(name=f"{name}.{self.gate_up}_bias", target=weights.gate_up_bias_XG),
            WeightSlot(name=f"{name}.{self.down}", target=weights.down_XEF.transpose(1, 2)),
            WeightSlot(name=f"{name}.{self.down}_bias", target=weights.down_bias_XE),
        ]
