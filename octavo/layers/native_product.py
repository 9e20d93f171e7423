"""NativeProduct: weights in the layout of the native kernels, each matrix in a form of its own.

Plain numbers stay in the width that the file has, or the model is asked for, and multiply with float32.
Packed ones stay packed, and their inputs are rounded to 8 bits, a scale for every 32: that costs accuracy
(docs/performance.md says how much). Either way a token's result depends on no other token in any bit.

T tokens, I input width, O output width.
"""

from __future__ import annotations

import torch

from octavo.layers.placement import Placement
from octavo.layers.product import Product
from octavo.layers.slot import PackedTarget, Taken
from octavo.ops.cpu.engine import NativeEngine, PackedMatrix
from octavo.ops.stored import StoredMatrix


class NativeProduct(Product):
    """The matrices of one linear layer."""

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement)
        assert placement.native is not None, "whoever makes it has asked"
        self.native: NativeEngine = placement.native
        self._placement = placement
        self._parts: dict[int, PackedMatrix] = {}
        """By the first row in the layer's whole matrix."""

    @property
    def parts(self) -> list[PackedMatrix]:
        """In order of their rows."""
        return [self._parts[start] for start in sorted(self._parts)]

    def empty(self, out_features: int, in_features: int, placement: Placement) -> torch.Tensor:
        """A shape without memory: what fills it comes packed."""
        return torch.empty(out_features, in_features, dtype=placement.dtype, device="meta")

    def packed_target(self, first_row: int) -> PackedTarget:
        def take(stored: StoredMatrix) -> Taken:
            matrix = self.native.pack(stored)
            self._parts[first_row] = matrix
            return Taken(matrix.packed.nbytes, matrix.is_finite)

        place = self._placement
        return PackedTarget(kinds=place.native_kinds, otherwise=place.weight_dtype, take=take)

    def rows(self, weight: torch.Tensor, ids_T: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        (matrix,) = self._parts.values()
        return self.native.rows(matrix, ids_T)

    def run(
        self,
        x_TI: torch.Tensor,
        weight: torch.Tensor,  # noqa: ARG002
        bias_O: torch.Tensor | None,
    ) -> torch.Tensor:
        return self.native.linear(x_TI, self.parts, bias_O)
