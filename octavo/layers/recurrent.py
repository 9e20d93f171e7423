"""Recurrent layers, and what they see of a step: whose tokens it computes, and what those rows remember."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from octavo.layers.factor import Factor
from octavo.layers.norm import Norm
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import StateSpec
from octavo.ops.step_rows import StepRows


@dataclass(frozen=True, kw_only=True)
class RecurrentStep:
    rows: StepRows
    states: Sequence[Sequence[torch.Tensor]]
    """By recurrent layer: the tensors of its StateSpec, [R, *shape] for R rows of the worker. Ops write to
    them. A sequence's first token starts from zero, so a row that changes hands needs no clearing.
    """


class RecurrentMixer(nn.Module, ABC):
    """Stands in the place of attention, and remembers in a state of fixed size."""

    @abstractmethod
    def forward(
        self,
        stream: Residual,
        norm: Norm | None,
        recur: RecurrentStep,
        post_norm: Norm | Factor | None = None,
    ) -> Residual:
        """x + mixer(norm(x)); the branch may have a norm or a factor at its end too."""

    @abstractmethod
    def state_spec(self) -> StateSpec:
        """What it keeps of a request."""

    @abstractmethod
    def slots(self, name: str) -> list[WeightSlot]: ...
