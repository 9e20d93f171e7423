"""The router of a mixture of experts. T tokens, E width, X experts, K chosen."""

from __future__ import annotations

import torch
from torch import nn

from octavo.layers.linear import Linear
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.ops.routing import Routing, choose_plain, route


class Router(nn.Module):
    def __init__(
        self,
        width: int,
        num_experts: int,
        routing: Routing,
        *,
        has_bias: bool = False,
        has_choice_bias: bool = False,
        placement: Placement,
    ) -> None:
        """has_choice_bias: a bias that experts are chosen by, but not weighted (e_score_correction_bias)."""
        super().__init__()
        self.routing = routing
        self.native_logits: Linear | None = None
        """In the layout of the native kernels, where there are some."""
        self.weight_XE = self.bias_X = self.choice_bias_X = None
        if placement.native is not None:
            self.native_logits = Linear(width, [num_experts], bias=has_bias, placement=placement)
        else:
            self.weight_XE = nn.Parameter(placement.empty(num_experts, width), requires_grad=False)
            if has_bias:
                self.bias_X = nn.Parameter(placement.empty(num_experts), requires_grad=False)
        if has_choice_bias:
            self.choice_bias_X = nn.Parameter(placement.empty(num_experts).float(), requires_grad=False)
        self._route = route.on(placement.device)

    def forward(self, x_TE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Experts int32 [T, K] and their weights float32 [T, K]."""
        if self.weight_XE is None:
            assert self.native_logits is not None, "one of both"
            return choose_plain(self.native_logits.forward(x_TE), self.choice_bias_X, self.routing)
        return self._route(x_TE, self.weight_XE, self.bias_X, self.choice_bias_X, self.routing)

    def slots(self, name: str) -> list[WeightSlot]:
        if self.weight_XE is None:
            assert self.native_logits is not None, "one of both"
            slots = self.native_logits.slots(name)
        else:
            slots = [WeightSlot(name=f"{name}.weight", target=self.weight_XE)]
        if self.bias_X is not None:
            slots.append(WeightSlot(name=f"{name}.bias", target=self.bias_X))
        if self.choice_bias_X is not None:
            slots.append(WeightSlot(name=f"{name}.e_score_correction_bias", target=self.choice_bias_X))
        return slots
