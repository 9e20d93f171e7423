"""A linear layer whose rows do not feel each other. T tokens, I input, O output.

Libraries choose another kernel, and with it another order of adding up, for every number of tokens. The
`deterministic` mode may not: a token's bits are the same in any batch, so a
request gives the same text alone and in a crowd.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.contract import Op


def _plain(x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """x @ W^T + bias. This form promises no equal bits, only the values."""
    return torch.nn.functional.linear(x_TI, weight_OI, bias_O)


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    for tokens, outputs, inputs, bias in ((1, 24, 64, False), (5, 70, 40, True), (130, 33, 150, True)):
        yield (
            torch.randn(tokens, inputs, generator=generator),
            torch.randn(outputs, inputs, generator=generator) / inputs**0.5,
            torch.randn(outputs, generator=generator) if bias else None,
        )


matmul_invariant = Op(
    name="matmul_invariant",
    plain=_plain,
    providers=LazyTable(
        "matmul_invariant provider", {"cuda": "octavo.ops.triton.matmul_invariant:matmul_invariant"}
    ),
    examples=_examples,
    tolerance=1e-4,
)
