"""A mixture of experts in the place of a layer's MLP. T tokens, E width, X experts, K chosen by a token."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from octavo.layers.expert_tensors import ExpertTensors, OneByOne
from octavo.layers.experts import Experts, ExpertShape
from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.mlp import GatedMLP
from octavo.layers.native_experts import NativeExperts
from octavo.layers.norm import Norm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.router import Router
from octavo.layers.slot import WeightSlot
from octavo.ops.by_rows import by_rows


@dataclass(frozen=True, kw_only=True)
class MixtureNames:
    """What checkpoints call a mixture within its layer, and its parts."""

    own: str = "mlp"
    router: str = "gate"
    experts: ExpertTensors = field(default_factory=OneByOne)
    shared_gate: str = "shared_expert_gate"


class MixtureOfExperts(nn.Module):
    """x + post_norm(the weighted sum of each token's experts on norm(x), plus what all tokens share)"""

    def __init__(
        self,
        router: Router,
        shape: ExpertShape,
        *,
        shared: GatedMLP | None = None,
        has_shared_gate: bool = False,
        names: MixtureNames | None = None,
        placement: Placement,
    ) -> None:
        """shared: experts of every token, as one MLP; with a gate: times sigmoid(a product with x)."""
        super().__init__()
        self.names = names or MixtureNames()
        self.router = router
        self.experts = (
            Experts(shape, placement) if placement.native is None else NativeExperts(shape, placement)
        )
        self.shared = shared
        self.shared_gate = Linear(shape.width, [1], placement=placement) if has_shared_gate else None

    def forward(
        self, stream: Residual, norm: Norm | None, post_norm: Norm | Factor | None = None
    ) -> Residual:
        if norm is None:
            x_TE = normed_TE = stream.total()
        else:
            x_TE, normed_TE = norm.add(*stream)
        chosen = self.router.forward(normed_TE)
        if post_norm is None:  # the experts' sum ends on the stream: nothing is left for the next norm to add
            return Residual(self.experts.forward(normed_TE, *chosen, self._with_shared(x_TE, normed_TE)))
        shared_TE = None if self.shared is None else self._with_shared(torch.zeros_like(x_TE), normed_TE)
        return Residual(x_TE, post_norm.forward(self.experts.forward(normed_TE, *chosen, shared_TE)))

    def _with_shared(self, x_TE: torch.Tensor, normed_TE: torch.Tensor) -> torch.Tensor:
        """x plus what all tokens share."""
        if self.shared is None:
            return x_TE
        if self.shared_gate is None:
            return self.shared.onto(Residual(x_TE), normed_TE).total()
        gate_T1 = by_rows(torch.sigmoid, self.shared_gate.forward(normed_TE))
        return torch.addcmul(x_TE, self.shared.branch(normed_TE), gate_T1)

    def slots(self, layer: str) -> list[WeightSlot]:
        name = f"{layer}.{self.names.own}"
        slots = self.router.slots(f"{name}.{self.names.router}")
        slots += self.names.experts.slots(name, self.experts)
        if self.shared is not None:
            slots += self.shared.slots(name)
        if self.shared_gate is not None:
            slots += self.shared_gate.slots(f"{name}.{self.names.shared_gate}")
        return slots
