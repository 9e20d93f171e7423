"""A linear layer for a few tokens, with what stands before and after it. T tokens, I input, O output.

At 1 to 4 tokens a linear layer is the reading of its weight. Whatever happens to the few values around it
(norm, gate, residual) is cheaper inside than as a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.activation import gated_silu
from octavo.ops.contract import Op
from octavo.ops.norm import rms_norm

MAX_TOKENS = 4
"""Providers take no more; from there on a matrix product is the better form."""


def _plain(
    x_TI: torch.Tensor,
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor | None = None,
    norm_weight_I: torch.Tensor | None = None,
    epsilon: float = 0.0,
    residual_TO: torch.Tensor | None = None,
    gated: bool = False,
) -> torch.Tensor:
    """residual + gate(norm(x) @ W^T + bias); each of norm, bias, gate and residual only where it is given.

    `gated`: the weight holds F gate rows over F up rows and the outputs are silu(gate) * up, [T, F].
    """
    if norm_weight_I is not None:
        x_TI = rms_norm.plain(x_TI, norm_weight_I, epsilon)
    y_TO = torch.nn.functional.linear(x_TI, weight_OI, bias_O)
    if gated:
        y_TO = gated_silu.plain(y_TO)
    return y_TO if residual_TO is None else residual_TO + y_TO


def _examples() -> Iterator[tuple[Any, ...]]:
    """Every option alone and together, at widths that fill a tile and widths that do not."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    yield draw(1, 64), draw(24, 64) / 8
    yield draw(2, 130), draw(10, 130) / 11, draw(10)
    yield draw(3, 1040), draw(6, 1040) / 32, None, draw(1040), 1e-5
    yield draw(4, 96), draw(5, 96) / 10, None, None, 0.0, draw(4, 5)
    yield draw(1, 36), draw(22, 36) / 6, None, None, 0.0, None, True
    yield draw(3, 72), draw(18, 72) / 8, draw(18), draw(72), 1e-6, draw(3, 9), True


matvec = Op(
    name="matvec",
    plain=_plain,
    providers=LazyTable("matvec provider", {"cuda": "octavo.ops.triton.matvec:matvec"}),
    examples=_examples,
    tolerance=1e-4,
)
