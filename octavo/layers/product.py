"""Product: how a device keeps the matrix of a linear layer, and multiplies with it.

T tokens, E width of the residual stream, I input width, O output width.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from octavo.layers.activations import ACTIVATIONS
from octavo.layers.norm import Norm, RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import PackedTarget
from octavo.ops.activation import gated_silu
from octavo.ops.matmul_invariant import matmul_invariant
from octavo.ops.matvec import MAX_TOKENS, matvec


class Product:
    """A linear layer y = x @ W^T + b on one kind of device. Holds no weights.

    Linear layers of a decoder stand between the residual stream and its branches. The two joints are
    methods, because a device may compute norm, gate or addition within the product.
    """

    def __init__(self, placement: Placement) -> None:
        self._gated_silu = gated_silu.on(placement.device)

    def empty(self, out_features: int, in_features: int, placement: Placement) -> torch.Tensor:
        """Room for a matrix in this product's own layout: [O, I], as it lies in checkpoints."""
        return placement.empty(out_features, in_features)

    def as_stored(self, weight: torch.Tensor) -> torch.Tensor:
        """A view of it as checkpoints have it, [O, I]."""
        return weight

    def packed_target(self, first_row: int) -> PackedTarget | None:  # noqa: ARG002
        """Takes one of the layer's matrices packed, the one whose first row this is; None: it goes into the
        room that `empty` made.
        """
        return None

    def rows(self, weight: torch.Tensor, ids_T: torch.Tensor) -> torch.Tensor:
        """Rows of the [O, I] matrix, contiguous [T, I]."""
        return weight.index_select(0, ids_T)

    def run(self, x_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        """[T, O]"""
        return functional.linear(x_TI, weight, bias_O)

    def activated(
        self, x_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None, activation: str
    ) -> torch.Tensor:
        """The same behind an activation, one of ACTIVATIONS."""
        return ACTIVATIONS[activation](self.run(x_TI, weight, bias_O))

    def from_stream(
        self,
        stream: Residual,
        norm: Norm,
        weight: torch.Tensor,
        bias_O: torch.Tensor | None,
        is_gated: bool,
    ) -> tuple[Residual, torch.Tensor]:
        """The stream with all deltas added, and the layer on its norm: [T, O], or gated [T, O / 2]."""
        x_TE, normed_TE = norm.add(stream.x_TE, stream.delta_TE)
        y_TO = self.run(normed_TE, weight, bias_O)
        return Residual(x_TE), self._gated_silu(y_TO) if is_gated else y_TO

    def from_total(
        self, stream: Residual, weight: torch.Tensor, bias_O: torch.Tensor | None, is_gated: bool
    ) -> tuple[Residual, torch.Tensor]:
        """As `from_stream`, but on the stream itself: for models without a norm here."""
        x_TE = stream.total()
        y_TO = self.run(x_TE, weight, bias_O)
        return Residual(x_TE), self._gated_silu(y_TO) if is_gated else y_TO

    def onto_stream(
        self, stream: Residual, y_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None
    ) -> Residual:
        """The stream with the layer on y added to it, now or later."""
        return Residual(stream.x_TE, self.run(y_TI, weight, bias_O))


def product_on(placement: Placement) -> Product:
    if placement.native is not None:
        from octavo.layers.native_product import NativeProduct  # it is a Product itself

        return NativeProduct(placement)
    if placement.device.type == "cpu":
        return _product_on_cpu(placement)
    return InvariantProduct(placement) if placement.deterministic else StreamingProduct(placement)


def _product_on_cpu(placement: Placement) -> Product:
    if placement.only_reads:
        from octavo.layers.wide_product import WideProduct, has_wide_products  # needs Product

        if has_wide_products(placement.dtype):
            return WideProduct(placement)
    return TransposedProduct(placement)


class TransposedProduct(Product):
    """[I, O], the CPU's layout.

    That costs a copy at load (0.2 s for 135 M parameters) where the file's own layout could have been
    mapped, and pays at once: for the default model's shapes a layer's products take 0.93 of the time at
    one token, 0.59 at 8 and 0.47 at 32, measured by benchmarks/linear_layout.py
    (results/2026-11-22-first-light).
    """

    def empty(self, out_features: int, in_features: int, placement: Placement) -> torch.Tensor:
        return placement.empty(in_features, out_features)

    def as_stored(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.t()

    def rows(self, weight: torch.Tensor, ids_T: torch.Tensor) -> torch.Tensor:
        return weight.index_select(1, ids_T).t().contiguous()

    def run(self, x_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        return x_TI @ weight if bias_O is None else torch.addmm(bias_O, x_TI, weight)


class StreamingProduct(Product):
    """A GPU's library for many tokens. A few tokens only stream the weight past: there our kernel takes
    norm, gate and addition along, so that a decoder layer has four of them and nothing in between.
    """

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement)
        self._matvec = matvec.on(placement.device)

    def run(self, x_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        if len(x_TI) <= MAX_TOKENS:
            return self._matvec(x_TI, weight, bias_O)
        return functional.linear(x_TI, weight, bias_O)

    def from_stream(
        self,
        stream: Residual,
        norm: Norm,
        weight: torch.Tensor,
        bias_O: torch.Tensor | None,
        is_gated: bool,
    ) -> tuple[Residual, torch.Tensor]:
        x_TE, delta_TE = stream
        if len(x_TE) > MAX_TOKENS or delta_TE is not None or not isinstance(norm, RMSNorm):
            return super().from_stream(stream, norm, weight, bias_O, is_gated)
        return stream, self._matvec(x_TE, weight, bias_O, norm.weight_E, norm.epsilon, None, is_gated)

    def onto_stream(
        self, stream: Residual, y_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None
    ) -> Residual:
        x_TE, delta_TE = stream
        if len(x_TE) > MAX_TOKENS or delta_TE is not None:
            return super().onto_stream(stream, y_TI, weight, bias_O)
        return Residual(self._matvec(y_TI, weight, bias_O, None, 0.0, x_TE))


class InvariantProduct(Product):
    """One kernel with fixed tiles for every number of tokens (see Placement.deterministic)."""

    def __init__(self, placement: Placement) -> None:
        super().__init__(placement)
        self._matmul = matmul_invariant.on(placement.device)

    def run(self, x_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        return self._matmul(x_TI, weight, bias_O)
