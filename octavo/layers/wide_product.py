"""WideProduct: products of many rows on a CPU, by oneDNN, with bias and activation in the same pass.

torch's own float32 products come from MKL, which uses half of a processor's width where that is not
Intel's: on a Zen 5 core 110 GFLOP/s where oneDNN reaches 250 (256 rows, 384 to 1536 columns). oneDNN writes
code for every shape it meets (0.7 ms), so it pays for models that only read: their steps have few shapes.

T tokens, I input width, O output width.
"""

from __future__ import annotations

import torch

from octavo.layers.product import Product

ROWS_MULTIPLE = 16
"""To which steps round the number of their rows."""

FUSED = {
    "gelu": ("gelu", "none"),
    "gelu_fast": ("gelu", "tanh"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}
"""Activations that oneDNN computes with the product: by our name, its name and formula."""


class WideProduct(Product):
    """[O, I], as it lies in checkpoints."""

    def run(self, x_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        return _linear(x_TI, weight, bias_O, "none", "")

    def activated(
        self, x_TI: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None, activation: str
    ) -> torch.Tensor:
        if activation not in FUSED:
            return super().activated(x_TI, weight, bias_O, activation)
        return _linear(x_TI, weight, bias_O, *FUSED[activation])


def has_wide_products(dtype: torch.dtype) -> bool:
    """Whether this build of torch has them. In narrower types torch's own products are oneDNN's already."""
    is_built = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return is_built and dtype == torch.float32


def _linear(
    x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None, name: str, formula: str
) -> torch.Tensor:
    found: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, weight_OI, bias_O, name, [], formula)
    return found
