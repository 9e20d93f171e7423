"""The linear kernels, compiled, in bfloat16 at the shapes of real models."""

from __future__ import annotations

import pytest
import torch

from octavo.ops.matmul_invariant import matmul_invariant
from octavo.ops.matvec import matvec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

WEIGHTS = [(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (4096, 1024), (1024, 2048), (1024, 3072)]
ROUNDED_ONCE = 2**-8
"""Relative error that the output's bfloat16 alone explains."""


def draw(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    drawn = torch.randn(*shape, device="cuda").to(dtype)
    # A kernel that overlaps its predecessor reads weights without waiting for whoever wrote them.
    torch.cuda.synchronize()
    return drawn


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


def in_float32(*arguments: object) -> list[object]:
    return [each.float() if isinstance(each, torch.Tensor) else each for each in arguments]


@pytest.mark.parametrize(
    ("shape", "tokens"),
    [(shape, 1) for shape in WEIGHTS] + [((4096, 4096), 2), ((4096, 14336), 3), ((1024, 3072), 4)],
    ids=str,
)
def test_matvec_with_norm_bias_and_residual(shape: tuple[int, int], tokens: int) -> None:
    outputs, inputs = shape
    run = matvec.on(torch.device("cuda"))
    x, weight = draw(tokens, inputs), draw(outputs, inputs) / inputs**0.5
    bias, norm, residual = draw(outputs), draw(inputs), draw(tokens, outputs)
    for arguments in (
        (x, weight, bias, norm, 1e-5, residual),
        (x, weight, None, norm, 1e-5, None, True),
    ):
        assert error(run(*arguments), matvec.plain(*in_float32(*arguments))) < ROUNDED_ONCE


def test_matvec_examples() -> None:
    run = matvec.on(torch.device("cuda"))
    for example in matvec.examples():
        example = [each.cuda() if isinstance(each, torch.Tensor) else each for each in example]
        torch.cuda.synchronize()
        torch.testing.assert_close(
            run(*example), matvec.plain(*example), atol=matvec.tolerance, rtol=matvec.tolerance
        )


def test_matvec_chain_in_a_graph_reads_what_its_predecessor_wrote() -> None:
    """Twenty products, each fed by the one before: whoever does not wait reads the replay before."""
    run = matvec.on(torch.device("cuda"))
    weights = [draw(2048, 2048) / 2048**0.5 for _ in range(20)]
    x = draw(1, 2048)

    def chain(function: object) -> torch.Tensor:
        y = x
        for weight in weights:
            y = function(y, weight)
        return y

    chain(run)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = chain(run)
    for _ in range(20):
        x.copy_(draw(1, 2048))
        y.fill_(float("nan"))
        graph.replay()
        found = y.clone()
        assert torch.equal(found, chain(lambda one, weight: _alone(run, one, weight)))


def _alone(run: object, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    torch.cuda.synchronize()
    y = run(x, weight)
    torch.cuda.synchronize()
    return y


@pytest.mark.parametrize("tokens", [1, 300])
@pytest.mark.parametrize("shape", WEIGHTS, ids=str)
def test_matmul_invariant(shape: tuple[int, int], tokens: int) -> None:
    outputs, inputs = shape
    x, weight, bias = draw(tokens, inputs), draw(outputs, inputs) / inputs**0.5, draw(outputs)
    found = matmul_invariant.on(torch.device("cuda"))(x, weight, bias)
    assert error(found, matmul_invariant.plain(*in_float32(x, weight, bias))) < ROUNDED_ONCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(4096, 4096), (1024, 3072), (9000, 1000)], ids=str)
def test_a_row_is_the_same_bits_in_any_batch(shape: tuple[int, int], dtype: torch.dtype) -> None:
    outputs, inputs = shape
    run = matmul_invariant.on(torch.device("cuda"))
    x, weight = draw(1030, inputs, dtype=dtype), draw(outputs, inputs, dtype=dtype)
    crowd = run(x, weight)
    for rows in (slice(0, 1), slice(77, 78), slice(1, 64), slice(3, 67), slice(5, 305), slice(1029, 1030)):
        assert torch.equal(run(x[rows], weight), crowd[rows]), rows


def test_exact_float32_is_exact() -> None:
    x, weight = draw(40, 500, dtype=torch.float32), draw(70, 500, dtype=torch.float32)
    found = matmul_invariant.on(torch.device("cuda"))(x, weight)
    exact = (x.double() @ weight.double().T).float()
    assert error(found, exact) < 1e-6
