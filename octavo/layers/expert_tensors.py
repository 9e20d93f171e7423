"""Where checkpoints have the tensors of experts. X experts, E width, F inner width, G = 2 F."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from octavo.layers.slot import WeightSlot


class TakesExperts(Protocol):
    """Experts that are filled tensor by tensor, in whatever shape a checkpoint has them."""

    @property
    def num_experts(self) -> int: ...

    def gate_slot(self, name: str, expert: int) -> WeightSlot:
        """[F, E]"""

    def up_slot(self, name: str, expert: int) -> WeightSlot:
        """[F, E]"""

    def down_slot(self, name: str, expert: int) -> WeightSlot:
        """[E, F]"""

    def halves_slot(self, name: str) -> WeightSlot:
        """[X, G, E]: of each expert first all gate rows, then all up rows."""

    def alternating_slot(self, name: str) -> WeightSlot:
        """[X, E, G]: gate and up columns alternate."""

    def all_down_slot(self, name: str, *, is_turned: bool = False) -> WeightSlot:
        """[X, E, F], or turned [X, F, E]"""

    def bias_slots(self, gate_up: str, down: str) -> list[WeightSlot]:
        """[X, G], in which gate and up alternate, and [X, E]"""


class ExpertTensors(Protocol):
    """How a kind of checkpoint holds the experts of one layer."""

    def slots(self, name: str, weights: TakesExperts) -> list[WeightSlot]:
        """`name` is that of the mixture."""


@dataclass(frozen=True, kw_only=True)
class OneByOne:
    """Three matrices for each expert."""

    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"

    def slots(self, name: str, weights: TakesExperts) -> list[WeightSlot]:
        slots: list[WeightSlot] = []
        for expert in range(weights.num_experts):
            of_expert = f"{name}.experts.{expert}"
            slots += [
                weights.gate_slot(f"{of_expert}.{self.gate}.weight", expert),
                weights.up_slot(f"{of_expert}.{self.up}.weight", expert),
                weights.down_slot(f"{of_expert}.{self.down}.weight", expert),
            ]
        return slots


@dataclass(frozen=True, kw_only=True)
class StackedHalves:
    """Matrices of all experts in one tensor; of each first all gate rows, then all up rows."""

    gate_up: str
    down: str

    def slots(self, name: str, weights: TakesExperts) -> list[WeightSlot]:
        return [weights.halves_slot(f"{name}.{self.gate_up}"), weights.all_down_slot(f"{name}.{self.down}")]


@dataclass(frozen=True, kw_only=True)
class StackedColumns:
    """Matrices of all experts in one tensor, inputs first; gate and up columns alternate. With biases."""

    gate_up: str = "experts.gate_up_proj"
    down: str = "experts.down_proj"

    def slots(self, name: str, weights: TakesExperts) -> list[WeightSlot]:
        gate_up, down = f"{name}.{self.gate_up}", f"{name}.{self.down}"
        return [
            weights.alternating_slot(gate_up),
            weights.all_down_slot(down, is_turned=True),
            *weights.bias_slots(f"{gate_up}_bias", f"{down}_bias"),
        ]
