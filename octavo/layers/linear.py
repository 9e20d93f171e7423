"""Linear: one product for one or several matrices of a checkpoint that share their input.

T tokens, I input width, O output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import nn

from octavo.layers.factor import Factor
from octavo.layers.norm import Norm
from octavo.layers.placement import Placement
from octavo.layers.product import product_on
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot


class Linear(nn.Module):
    """x @ W^T + b for matrices of `out_features` rows each, all fed from the same input."""

    def __init__(
        self, in_features: int, out_features: Sequence[int], *, bias: bool = False, placement: Placement
    ) -> None:
        super().__init__()
        self.ends = list(accumulate(out_features))
        self.product = product_on(placement)
        weight = self.product.empty(self.ends[-1], in_features, placement)
        self.weight = nn.Parameter(weight, requires_grad=False)
        bias_O = placement.empty(self.ends[-1]) if bias else None
        self.bias_O = None if bias_O is None else nn.Parameter(bias_O, requires_grad=False)

    def forward(self, x_TI: torch.Tensor) -> torch.Tensor:
        return self.product.run(x_TI, self.weight, self.bias_O)

    def activated(self, x_TI: torch.Tensor, activation: str) -> torch.Tensor:
        """activation(x @ W^T + b), by the name in ACTIVATIONS."""
        return self.product.activated(x_TI, self.weight, self.bias_O, activation)

    def from_stream(
        self, stream: Residual, norm: Norm | None, *, is_gated: bool = False
    ) -> tuple[Residual, torch.Tensor]:
        """This layer on the norm of the stream: [T, O]. Gated: silu(first half) * second half, [T, O / 2].

        No norm: on the stream itself. The stream comes back without a delta.
        """
        if norm is None:
            return self.product.from_total(stream, self.weight, self.bias_O, is_gated)
        return self.product.from_stream(stream, norm, self.weight, self.bias_O, is_gated)

    def onto_stream(
        self, stream: Residual, y_TI: torch.Tensor, post_norm: Norm | Factor | None = None
    ) -> Residual:
        """This layer on y (and the norm or a multiple of that), added to the stream."""
        if post_norm is not None:
            assert stream.delta_TE is None, "from_stream has added it"
            return Residual(stream.x_TE, post_norm.forward(self.forward(y_TI)))
        return self.product.onto_stream(stream, y_TI, self.weight, self.bias_O)

    def rows(self, ids_T: torch.Tensor) -> torch.Tensor:
        """Rows of the checkpoint's matrix [O, I]: what a tied embedding looks up."""
        return self.product.rows(self.weight, ids_T)

    def slots(self, *names: str) -> list[WeightSlot]:
        """Where the tensors `name.weight` (and `name.bias`) of each matrix go; one name: of all as one."""
        slots: list[WeightSlot] = []
        weight_OI = self.product.as_stored(self.weight)
        ends = self.ends[-1:] if len(names) == 1 else self.ends
        for name, start, end in zip(names, [0, *ends[:-1]], ends, strict=True):
            slots.append(
                WeightSlot(
                    name=f"{name}.weight",
                    target=weight_OI[start:end],
                    packed=self.product.packed_target(start),
                )
            )
            if self.bias_O is not None:
                slots.append(WeightSlot(name=f"{name}.bias", target=self.bias_O[start:end]))
        return slots
