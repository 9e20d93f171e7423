"""Experts in the layout of the native kernels, each matrix in the form that its file asks for.

T tokens, E width, X experts, K of a token, F inner width, G = 2 F: all gate rows, then all up rows. A pair is
one token and one of its experts, P = T K.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from torch import nn

from octavo.layers.experts import ExpertShape
from octavo.layers.placement import Placement
from octavo.layers.slot import PackedTarget, Taken, WeightSlot
from octavo.ops.cpu.engine import NativeEngine, PackedMatrix, linear_struct
from octavo.ops.cpu.structs import LinearStruct
from octavo.ops.experts import weighted_sum
from octavo.ops.stored import StoredMatrix

Matrices = dict[int, list[PackedMatrix]]
"""By expert; several are side by side."""


class NativeExperts(nn.Module):
    """A pair's result depends on no other pair in any bit, and a token adds its experts up in their order."""

    def __init__(self, shape: ExpertShape, placement: Placement) -> None:
        super().__init__()
        assert placement.native is not None, "whoever makes it has asked"
        self._native: NativeEngine = placement.native
        self._placement, self._shape = placement, shape
        self.num_experts = shape.num_experts
        self._gate_up: Matrices = {expert: [] for expert in range(shape.num_experts)}
        self._down: Matrices = {expert: [] for expert in range(shape.num_experts)}
        self.gate_up_bias_XG = self.down_bias_XE = None
        if shape.has_bias:
            gate_up_bias_XG = placement.empty(shape.num_experts, 2 * shape.inner)
            self.gate_up_bias_XG = nn.Parameter(gate_up_bias_XG, requires_grad=False)
            self.down_bias_XE = nn.Parameter(
                placement.empty(shape.num_experts, shape.width), requires_grad=False
            )

    def forward(
        self,
        x_TE: torch.Tensor,
        experts_TK: torch.Tensor,
        weights_TK: torch.Tensor,
        added_TE: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The weighted sum of each token's experts, plus `added`: [T, E]."""
        experts_P = experts_TK.flatten()
        order_P = experts_P.argsort(stable=True)
        counts = torch.bincount(experts_P, minlength=self.num_experts).tolist()
        in_use = [expert for expert, count in enumerate(counts) if count]
        ends = [end for start, end in pairwise(accumulate(counts, initial=0)) if start < end]
        gate_up, down = self._linears
        x_PE = x_TE.index_select(0, order_P // experts_TK.shape[1])
        gate_up_PG = self._native.grouped([gate_up[expert] for expert in in_use], ends, x_PE)
        inner_PF = self._shape.gate.of(*gate_up_PG.chunk(2, 1)).contiguous()
        y_PE = self._native.grouped([down[expert] for expert in in_use], ends, inner_PF)
        y_TE = weighted_sum(torch.empty_like(y_PE).index_copy_(0, order_P, y_PE), weights_TK)
        return y_TE if added_TE is None else y_TE.add_(added_TE)

    @cached_property
    def _linears(self) -> tuple[list[LinearStruct], list[LinearStruct]]:
        """Gate and up, and down, of all experts; made once the weights are there."""

        def of(matrices: Matrices, bias: torch.Tensor | None) -> list[LinearStruct]:
            return [
                linear_struct(parts, None if bias is None else bias[expert])
                for expert, parts in matrices.items()
            ]

        return of(self._gate_up, self.gate_up_bias_XG), of(self._down, self.down_bias_XE)

    def gate_slot(self, name: str, expert: int) -> WeightSlot:
        return self._one(name, self._gate_up, expert, place=0)

    def up_slot(self, name: str, expert: int) -> WeightSlot:
        return self._one(name, self._gate_up, expert, place=1)

    def down_slot(self, name: str, expert: int) -> WeightSlot:
        return self._one(name, self._down, expert, place=0)

    def halves_slot(self, name: str) -> WeightSlot:
        return self._all(name, self._gate_up, 2 * self._shape.inner, self._shape.width)

    def alternating_slot(self, name: str) -> WeightSlot:
        rows, columns = 2 * self._shape.inner, self._shape.width
        return self._all(name, self._gate_up, rows, columns, is_turned=True, order=self._halves())

    def all_down_slot(self, name: str, *, is_turned: bool = False) -> WeightSlot:
        return self._all(name, self._down, self._shape.width, self._shape.inner, is_turned=is_turned)

    def bias_slots(self, gate_up: str, down: str) -> list[WeightSlot]:
        assert self.gate_up_bias_XG is not None and self.down_bias_XE is not None, "built with biases"
        return [
            WeightSlot(name=gate_up, target=self.gate_up_bias_XG, order_R=self._halves(), order_dim=1),
            WeightSlot(name=down, target=self.down_bias_XE),
        ]

    def _halves(self) -> torch.Tensor:
        """From alternating rows to all of one kind, then all of the other."""
        return torch.arange(2 * self._shape.inner).view(-1, 2).t().flatten()

    def _one(self, name: str, matrices: Matrices, expert: int, *, place: int) -> WeightSlot:
        shape = self._shape
        rows, columns = (shape.width, shape.inner) if matrices is self._down else (shape.inner, shape.width)

        def take(stored: StoredMatrix) -> Taken:
            packed = self._native.pack(stored)
            matrices[expert].insert(place, packed)
            return Taken(packed.packed.nbytes, packed.is_finite)

        return WeightSlot(name=name, target=self._shape_only(rows, columns), packed=self._target(take))

    def _all(
        self,
        name: str,
        matrices: Matrices,
        rows: int,
        columns: int,
        *,
        is_turned: bool = False,
        order: torch.Tensor | None = None,
    ) -> WeightSlot:
        """`order` is of the rows of each expert."""

        def take(stored: StoredMatrix) -> Taken:
            num_bytes, is_finite = 0, True
            for expert in range(self.num_experts):
                own = replace(stored, data=stored.data[expert * rows : (expert + 1) * rows])
                packed = self._native.pack(own if order is None else own.reordered(order.numpy()))
                matrices[expert] = [packed]
                num_bytes += packed.packed.nbytes
                is_finite &= packed.is_finite
            return Taken(num_bytes, is_finite)

        matrix = (columns, rows) if is_turned else (rows, columns)
        target = self._shape_only(self.num_experts, *matrix)
        return WeightSlot(name=name, target=target, packed=self._target(take), is_turned=is_turned)

    def _shape_only(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self._placement.dtype, device="meta")

    def _target(self, take: Callable[[StoredMatrix], Taken]) -> PackedTarget:
        place = self._placement
        return PackedTarget(kinds=place.native_kinds, otherwise=place.weight_dtype, take=take)
