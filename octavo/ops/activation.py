"""The gate of a gated MLP. T tokens, F inner width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from octavo.base.table import LazyTable
from octavo.ops.contract import Op


def _plain(gate_and_up_T2F: torch.Tensor) -> torch.Tensor:
    """silu(first half) * second half."""
    gate, up = gate_and_up_T2F.chunk(2, -1)
    return torch.nn.functional.silu(gate) * up


def gated_silu_cpu(gate_and_up_T2F: torch.Tensor) -> torch.Tensor:
    """Multiplies in place: 0.27 of the time at 512 tokens of width 1536 (benchmarks/ops_cpu.py)."""
    gate, up = gate_and_up_T2F.chunk(2, -1)
    return torch.nn.functional.silu(gate).mul_(up)


def _plain_gelu(gate_and_up_T2F: torch.Tensor) -> torch.Tensor:
    """gelu(first half) * second half, with gelu's tanh approximation."""
    gate, up = gate_and_up_T2F.chunk(2, -1)
    return torch.nn.functional.gelu(gate, approximate="tanh") * up


def gated_gelu_cpu(gate_and_up_T2F: torch.Tensor) -> torch.Tensor:
    """Multiplies in place, as gated_silu_cpu does."""
    gate, up = gate_and_up_T2F.chunk(2, -1)
    return torch.nn.functional.gelu(gate, approximate="tanh").mul_(up)


def _plain_gelu_erf(gate_and_up_T2F: torch.Tensor) -> torch.Tensor:
    """gelu(first half) * second half, with gelu as it is defined."""
    gate, up = gate_and_up_T2F.chunk(2, -1)
    return torch.nn.functional.gelu(gate) * up


def gated_gelu_erf_cpu(gate_and_up_T2F: torch.Tensor) -> torch.Tensor:
    """Multiplies in place, as gated_silu_cpu does."""
    gate, up = gate_and_up_T2F.chunk(2, -1)
    return torch.nn.functional.gelu(gate).mul_(up)


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    for tokens, width in ((1, 4), (9, 100), (40, 3072)):
        yield (torch.randn(tokens, width, generator=generator) * 4,)


gated_silu = Op(
    name="gated_silu",
    plain=_plain,
    providers=LazyTable(
        "gated_silu provider",
        {"cpu": "octavo.ops.activation:gated_silu_cpu", "cuda": "octavo.ops.triton.activation:gated_silu"},
    ),
    examples=_examples,
    tolerance=1e-6,
)
gated_gelu = Op(
    name="gated_gelu",
    plain=_plain_gelu,
    providers=LazyTable(
        "gated_gelu provider",
        {"cpu": "octavo.ops.activation:gated_gelu_cpu", "cuda": "octavo.ops.triton.activation:gated_gelu"},
    ),
    examples=_examples,
    tolerance=1e-5,
)
gated_gelu_erf = Op(
    name="gated_gelu_erf",
    plain=_plain_gelu_erf,
    providers=LazyTable("gated_gelu_erf provider", {"cpu": "octavo.ops.activation:gated_gelu_erf_cpu"}),
    examples=_examples,
    tolerance=1e-6,
)
