"""Layer normalisation, alone and after the addition that comes before it. T tokens, E width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from octavo.base.table import LazyTable
from octavo.ops.contract import Op


def _plain(
    x_TE: torch.Tensor, weight_E: torch.Tensor, bias_E: torch.Tensor | None, epsilon: float
) -> torch.Tensor:
    """Mean 0 and variance 1, scaled and shifted, all in float32; the result has the input's type.

    One call of torch, which is the CPU's fastest form too. Weights are float32 where a family adds to them.
    """
    bias = None if bias_E is None else bias_E.float()
    normed_TE = functional.layer_norm(x_TE.float(), weight_E.shape, weight_E.float(), bias, epsilon)
    return normed_TE.to(x_TE.dtype)


def _plain_add(
    x_TE: torch.Tensor,
    delta_TE: torch.Tensor,
    weight_E: torch.Tensor,
    bias_E: torch.Tensor | None,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + delta, rounded to the input's type, and the norm of that."""
    sum_TE = x_TE + delta_TE
    return sum_TE, _plain(sum_TE, weight_E, bias_E, epsilon)


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    for tokens, width, has_bias in ((1, 8, True), (7, 120, False), (33, 576, True)):
        yield (
            torch.randn(tokens, width, generator=generator) * 3 + 1,
            torch.randn(width, generator=generator),
            torch.randn(width, generator=generator) if has_bias else None,
            1e-5,
        )


def _examples_of_add() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(1)
    for x_TE, *others in _examples():
        yield x_TE, torch.randn(x_TE.shape, generator=generator), *others


layer_norm = Op(
    name="layer_norm",
    plain=_plain,
    providers=LazyTable("layer_norm provider", {"cuda": "octavo.ops.triton.layer_norm:layer_norm"}),
    examples=_examples,
    tolerance=1e-5,
)
add_layer_norm = Op(
    name="add_layer_norm",
    plain=_plain_add,
    providers=LazyTable("add_layer_norm provider", {"cuda": "octavo.ops.triton.layer_norm:add_layer_norm"}),
    examples=_examples_of_add,
    tolerance=1e-5,
)
