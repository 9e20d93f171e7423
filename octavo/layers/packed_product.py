"""PackedProduct: weights stay packed as in the file, inputs are rounded to 8 bits, sums are float32.

T tokens, I input width, O output width.
"""

from __future__ import annotations

import torch

from octavo.layers.placement import Placement
from octavo.layers.product import Product
from octavo.layers.slot import PackedTarget, Taken
from octavo.ops.cpu.engine import TYPES, NativeEngine, PackedMatrix
from octavo.ops.stored import StoredMatrix


class PackedProduct(Product):
    """The matrices of one linear layer, each in the form its own type asks for.

    Rounding the inputs, a scale for every 32 of them, costs accuracy (docs/performance.md says how much);
    a token's result depends on no other token in any bit.
    """

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement)
        assert placement.native is not None, "packed weights need the native kernels"
        self.native: NativeEngine = placement.native
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

        return PackedTarget(kinds=frozenset(TYPES), take=take)

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
