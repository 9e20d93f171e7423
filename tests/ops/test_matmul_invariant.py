"""The product whose rows are the same in any batch, interpreted, against the plain form and itself."""

from __future__ import annotations

import pytest
import torch

from octavo.base.errors import EngineError
from octavo.ops.matmul_invariant import matmul_invariant

kernels = pytest.importorskip("octavo.ops.triton.matmul_invariant")
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled here: tests/gpu covers them"
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize("example", list(matmul_invariant.examples()))
def test_equals_the_plain_form(example: tuple) -> None:
    tolerance = matmul_invariant.tolerance
    found = kernels.matmul_invariant(*example)
    torch.testing.assert_close(found, matmul_invariant.plain(*example), atol=tolerance, rtol=tolerance)


def test_narrow_types_are_summed_in_float32() -> None:
    """Float16 alone: Triton's interpreter multiplies bfloat16 matrices bit pattern by bit pattern."""
    dtype = torch.float16
    x, weight, bias = draw(3, 300).to(dtype), draw(40, 300).to(dtype), draw(40).to(dtype)
    found = kernels.matmul_invariant(x, weight, bias)
    exact = matmul_invariant.plain(x.float(), weight.float(), bias.float())
    assert found.dtype == dtype
    assert (found - exact).norm() < 2**-10 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_row_is_the_same_bits_in_any_batch(dtype: torch.dtype) -> None:
    x, weight, bias = draw(150, 96).to(dtype), draw(70, 96).to(dtype), draw(70).to(dtype)
    crowd = kernels.matmul_invariant(x, weight, bias)
    for rows in (slice(0, 1), slice(3, 8), slice(60, 124), slice(70, 136), slice(149, 150)):
        assert torch.equal(kernels.matmul_invariant(x[rows], weight, bias), crowd[rows])


def test_other_rows_cannot_reach_a_row() -> None:
    x, weight = draw(6, 40), draw(10, 40)
    quiet = kernels.matmul_invariant(x, weight)
    loud = x.clone()
    loud[:3] = float("inf")
    loud[4:] = float("nan")
    assert torch.equal(kernels.matmul_invariant(loud, weight)[3], quiet[3])


@pytest.mark.parametrize("tile", [(16, 16, 1), (32, 128, 2), (64, 64, 3)])
def test_every_cut_covers_every_row_and_column_once(tile: tuple[int, int, int]) -> None:
    """Whole numbers, so that any order gives the same sum and a doubled or forgotten product shows."""
    x = torch.arange(1100 * 72).reshape(1100, 72).remainder(7).float() - 3
    weight = torch.arange(37 * 72).reshape(37, 72).remainder(5).float() - 2
    found = kernels.launch(x, weight, tile=kernels.InvariantTile(*tile))
    assert torch.equal(found, x @ weight.T)


def test_no_tokens() -> None:
    assert kernels.matmul_invariant(draw(0, 32), draw(4, 32)).shape == (0, 4)


def test_strided_weights_are_refused() -> None:
    with pytest.raises(EngineError, match="row by row"):
        kernels.matmul_invariant(draw(1, 32), draw(32, 4).T)
