"""Elementwise functions give a row the same bits whatever rows follow it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional

from octavo.ops.by_rows import by_rows


@pytest.mark.parametrize(
    "function", [functional.silu, functional.gelu, torch.sigmoid, torch.exp, torch.tanh_]
)
@pytest.mark.parametrize("width", [1, 12, 88, 64, 259])
def test_rows_alone_and_together(function: Callable[[torch.Tensor], torch.Tensor], width: int) -> None:
    x_TI = torch.randn(37, width, generator=torch.Generator().manual_seed(width)) * 3
    together = by_rows(function, x_TI.clone())
    torch.testing.assert_close(together, function(x_TI.clone()))
    for row in range(37):
        assert torch.equal(by_rows(function, x_TI[row : row + 1].clone())[0], together[row])
