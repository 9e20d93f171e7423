"""A matrix for each head. T tokens, H heads, I input, O output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.contract import Op


def _plain(x_THI: torch.Tensor, weight_HOI: torch.Tensor) -> torch.Tensor:
    """x_h @ W_h^T: [T, H, O], contiguous. Any strides."""
    out_THO = x_THI.new_empty(*x_THI.shape[:2], weight_HOI.shape[1])
    torch.bmm(x_THI.transpose(0, 1), weight_HOI.transpose(1, 2), out=out_THO.transpose(0, 1))
    return out_THO


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    for tokens, heads, inputs, outputs in ((1, 3, 8, 20), (5, 2, 40, 70), (70, 1, 33, 16)):
        x_THI = torch.randn(tokens, heads, inputs + 4, generator=generator)[..., :inputs]
        weight = torch.randn(heads, inputs, outputs, generator=generator) / inputs**0.5
        yield x_THI, weight.transpose(1, 2)
        yield x_THI, weight.transpose(1, 2).contiguous()


head_product = Op(
    name="head_product",
    plain=_plain,
    providers=LazyTable(
        "head_product provider", {"cuda": "octavo.ops.triton.head_product:head_product_invariant"}
    ),
    examples=_examples,
    tolerance=1e-4,
)
"""The provider's rows are the same bits in any batch (see matmul_invariant); without that wish the library's,
which is the plain form, is faster.
"""
