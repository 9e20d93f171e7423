"""Heads that score labels. S texts, E width, N labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from octavo.layers.linear import Linear
from octavo.layers.norm import LayerNorm
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot


class ScoreHead(nn.Module):
    """One product: what decoders score with."""

    def __init__(self, width: int, num_labels: int, placement: Placement) -> None:
        super().__init__()
        self.score = Linear(width, [num_labels], placement=placement)

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        return self.score.forward(pooled_SE.to(self.score.weight.dtype))

    def slots(self) -> list[WeightSlot]:
        return self.score.slots("score")


@dataclass(frozen=True, kw_only=True)
class DenseNames:
    """How a family calls the tensors of its head."""

    dense: str
    out: str
    norm: str | None = None


class DenseHead(nn.Module):
    """A hidden layer, perhaps a norm, and the product that scores: what encoders score with."""

    def __init__(
        self,
        width: int,
        num_labels: int,
        *,
        names: DenseNames,
        activation: Callable[[torch.Tensor], torch.Tensor],
        has_dense_bias: bool = True,
        norm: LayerNorm | None = None,
        placement: Placement,
    ) -> None:
        super().__init__()
        self._names = names
        self._activation = activation
        self.dense = Linear(width, [width], bias=has_dense_bias, placement=placement)
        self.norm = norm
        self.out = Linear(width, [num_labels], bias=True, placement=placement)

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        x_SE = self._activation(self.dense.forward(pooled_SE.to(self.dense.weight.dtype)))
        return self.out.forward(x_SE if self.norm is None else self.norm.forward(x_SE))

    def slots(self) -> list[WeightSlot]:
        names = self._names
        slots = [*self.dense.slots(names.dense), *self.out.slots(names.out)]
        return slots if self.norm is None or names.norm is None else [*slots, *self.norm.slots(names.norm)]
