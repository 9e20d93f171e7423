"""Stacked experts, and how they take in a checkpoint's tensors. T tokens, E width, X experts, F inner width.

The matrices are kept as `octavo.ops.experts` reads them: G = 2 F rows, in which gate and up alternate.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        self.num_experts = count
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

    def gate_slot(self, name: str, expert: int) -> WeightSlot:
        return WeightSlot(name=name, target=self.gate_up_XGE[expert, ::2])

    def up_slot(self, name: str, expert: int) -> WeightSlot:
        return WeightSlot(name=name, target=self.gate_up_XGE[expert, 1::2])

    def down_slot(self, name: str, expert: int) -> WeightSlot:
        return WeightSlot(name=name, target=self.down_XEF[expert])

    def halves_slot(self, name: str) -> WeightSlot:
        order_G = torch.arange(self.gate_up_XGE.shape[1]).view(2, -1).t().flatten()
        return WeightSlot(name=name, target=self.gate_up_XGE, order_R=order_G, order_dim=1)

    def alternating_slot(self, name: str) -> WeightSlot:
        return WeightSlot(name=name, target=self.gate_up_XGE.transpose(1, 2))

    def all_down_slot(self, name: str, *, is_turned: bool = False) -> WeightSlot:
        return WeightSlot(name=name, target=self.down_XEF.transpose(1, 2) if is_turned else self.down_XEF)

    def bias_slots(self, gate_up: str, down: str) -> list[WeightSlot]:
        assert self.gate_up_bias_XG is not None and self.down_bias_XE is not None, "built with biases"
        return [
            WeightSlot(name=gate_up, target=self.gate_up_bias_XG),
            WeightSlot(name=down, target=self.down_bias_XE),
        ]
