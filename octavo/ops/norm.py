"""Root-mean-square normalisation, alone and after the addition that comes before it. T tokens, E width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.contract import Op


def _plain(x_TE: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Normalise in float32, round to the weight's type, scale. The result has the input's type.

    Most weights have the input's type. Gemma's are 1 + w, which narrow types cannot hold: float32.
    """
    x = x_TE.float()
    x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)
    return (weight_E * x.to(weight_E.dtype)).to(x_TE.dtype)


def rms_norm_cpu(x_TE: torch.Tensor, weight_E: torch.Tensor, epsilon: float) -> torch.Tensor:
    """One call instead of six: 0.82 of the time at one token of width 576 (benchmarks/ops_cpu.py).

    Narrow types keep the plain form, which rounds before the scale as checkpoints expect.
    """
    if x_TE.dtype != torch.float32:
        return _plain(x_TE, weight_E, epsilon)
    return torch.nn.functional.rms_norm(x_TE, weight_E.shape, weight_E, epsilon)


def _plain_add(
    x_TE: torch.Tensor, delta_TE: torch.Tensor, weight_E: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + delta, rounded to the input's type, and the norm of that."""
    sum_TE = x_TE + delta_TE
    return sum_TE, _plain(sum_TE, weight_E, epsilon)


def add_rms_norm_cpu(
    x_TE: torch.Tensor, delta_TE: torch.Tensor, weight_E: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain form over the faster norm."""
    sum_TE = x_TE + delta_TE
    return sum_TE, rms_norm_cpu(sum_TE, weight_E, epsilon)


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    for tokens, width in ((1, 8), (7, 120), (33, 576)):
        yield (
            torch.randn(tokens, width, generator=generator) * 3,
            torch.randn(width, generator=generator),
            1e-5,
        )


def _examples_of_add() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(1)
    for x_TE, weight_E, epsilon in _examples():
        yield x_TE, torch.randn(x_TE.shape, generator=generator), weight_E, epsilon


rms_norm = Op(
    name="rms_norm",
    plain=_plain,
    providers=LazyTable(
        "rms_norm provider",
        {"cpu": "octavo.ops.norm:rms_norm_cpu", "cuda": "octavo.ops.triton.norm:rms_norm"},
    ),
    examples=_examples,
    tolerance=1e-5,
)
add_rms_norm = Op(
    name="add_rms_norm",
    plain=_plain_add,
    providers=LazyTable(
        "add_rms_norm provider",
        {"cpu": "octavo.ops.norm:add_rms_norm_cpu", "cuda": "octavo.ops.triton.norm:add_rms_norm"},
    ),
    examples=_examples_of_add,
    tolerance=1e-5,
)
