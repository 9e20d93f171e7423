"""RMS normalisation with a gate, each group of columns by itself. T tokens, E width."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from octavo.base.table import LazyTable
from octavo.ops.by_rows import by_rows
from octavo.ops.contract import Op


def _plain(
    x_TE: torch.Tensor,
    gate_TE: torch.Tensor,
    weight_E: torch.Tensor,
    epsilon: float,
    num_groups: int,
    gates_first: bool,
) -> torch.Tensor:
    """norm(x * silu(gate)) * weight, or norm(x) * weight * silu(gate), in float32; x's type comes back."""
    x, gate = x_TE.float(), by_rows(functional.silu, gate_TE.float())
    x_TGW = (x * gate if gates_first else x).view(len(x), num_groups, -1)
    x_TGW = x_TGW * torch.rsqrt(x_TGW.square().mean(-1, keepdim=True) + epsilon)
    y_TE = x_TGW.flatten(1) * weight_E.float()
    return (y_TE if gates_first else y_TE * gate).to(x_TE.dtype)


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    for tokens, width, groups in ((1, 8, 1), (7, 120, 3), (33, 576, 2)):
        for gates_first in (False, True):
            x_TE, gate_TE = (torch.randn(tokens, width + 9, generator=generator)[:, 9:] for _ in range(2))
            yield x_TE, gate_TE, torch.randn(width, generator=generator), 1e-5, groups, gates_first


gated_rms_norm = Op(
    name="gated_rms_norm",
    plain=_plain,
    providers=LazyTable("gated_rms_norm provider", {"cuda": "octavo.ops.triton.gated_norm:gated_rms_norm"}),
    examples=_examples,
    tolerance=1e-5,
)
