"""Routers and experts, compiled, in bfloat16 at the shapes of real models."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from octavo.ops.experts import SILU, SwiGLU, experts, experts_by_group, experts_invariant
from octavo.ops.routing import Groups, Routing, Scoring, route

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda")
ROUNDED_THRICE = 2**-7
"""Relative error that bfloat16 explains: gated values, each expert's result, the sum."""


class Shape(NamedTuple):
    num_experts: int
    num_chosen: int
    width: int
    inner: int
    gate: SwiGLU = SILU
    has_bias: bool = False


SHAPES = {
    "qwen3-30b-a3b": Shape(128, 8, 2048, 768),
    "deepseek-v2-lite": Shape(64, 6, 2048, 1408),
    "gpt-oss-20b": Shape(32, 4, 2880, 2880, SwiGLU(alpha=1.702, limit=7.0, offset=1.0), has_bias=True),
    "olmoe": Shape(64, 8, 2048, 1024),
}
TOKENS = (1, 5, 16, 17, 100, 500, 1500)
"""Every form, and sizes that fill no tile."""


def draw(*shape: int) -> torch.Tensor:
    drawn = torch.randn(*shape, device="cuda").bfloat16()
    torch.cuda.synchronize()
    return drawn


def make(shape: Shape, tokens: int, *, crowded: bool = False) -> tuple[Any, ...]:
    """crowded: all tokens want the same experts."""
    scores_TX = torch.randn(tokens, shape.num_experts, device="cuda")
    if crowded:
        scores_TX[:, :: shape.num_experts // shape.num_chosen] += 20.0
    weights_TK, experts_TK = scores_TX.softmax(-1).topk(shape.num_chosen)
    biases: tuple[Any, ...] = (None, None)
    if shape.has_bias:
        biases = draw(shape.num_experts, 2 * shape.inner), draw(shape.num_experts, shape.width)
    gate_up = draw(shape.num_experts, 2 * shape.inner, shape.width) / shape.width**0.5
    down = draw(shape.num_experts, shape.width, shape.inner) / shape.inner**0.5
    made = draw(tokens, shape.width), experts_TK.int(), weights_TK, gate_up, down, *biases, shape.gate
    torch.cuda.synchronize()
    return made


def exact(arguments: tuple[Any, ...]) -> torch.Tensor:
    """By expert in float32, which tests on the CPU show to be the plain form."""
    return experts_by_group(
        *(
            each.float() if isinstance(each, torch.Tensor) and each.is_floating_point() else each
            for each in arguments
        )
    )


def error(found: torch.Tensor, truth: torch.Tensor) -> float:
    return float((found.float() - truth).norm() / truth.norm())


@pytest.mark.parametrize("name", SHAPES)
def test_experts_at_every_number_of_tokens(name: str) -> None:
    for tokens in TOKENS:
        arguments = make(SHAPES[name], tokens)
        truth = exact(arguments)
        for op in (experts, experts_invariant):
            assert error(op.on(CUDA)(*arguments), truth) < ROUNDED_THRICE, (tokens, op.name)


def test_experts_that_all_tokens_want() -> None:
    for tokens in (16, 300, 3000):
        arguments = make(SHAPES["qwen3-30b-a3b"], tokens, crowded=True)
        added = draw(tokens, 2048)
        found = experts.on(CUDA)(*arguments, added)
        assert error(found, exact(arguments) + added.float()) < ROUNDED_THRICE


def test_examples_in_float32() -> None:
    for op in (experts, experts_invariant):
        for example in op.examples():
            example = [each.cuda() if isinstance(each, torch.Tensor) else each for each in example]
            torch.cuda.synchronize()
            truth = op.plain(*example)
            torch.testing.assert_close(op.on(CUDA)(*example), truth, atol=op.tolerance, rtol=op.tolerance)


@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "gpt-oss-20b"])
def test_invariant_a_token_is_the_same_bits_in_any_batch(name: str) -> None:
    run = experts_invariant.on(CUDA)
    x, chosen, weights, *rest = make(SHAPES[name], 1030)
    crowd = run(x, chosen, weights, *rest)
    for rows in (slice(0, 1), slice(77, 78), slice(1, 64), slice(5, 305), slice(1029, 1030)):
        alone = run(x[rows].contiguous(), chosen[rows].contiguous(), weights[rows].contiguous(), *rest)
        assert torch.equal(alone, crowd[rows]), rows


@pytest.mark.parametrize("tokens", [1, 16, 64, 512])
def test_a_graph_follows_the_choice_of_experts(tokens: int) -> None:
    """Router and experts captured together: other tokens choose other experts at each replay."""
    shape = SHAPES["qwen3-30b-a3b"]
    x, _, _, *matrices = make(shape, tokens)
    router, routing = draw(shape.num_experts, shape.width), Routing(num_chosen=shape.num_chosen)

    def layer() -> torch.Tensor:
        return experts.on(CUDA)(x, *route.on(CUDA)(x, router, None, None, routing), *matrices)

    layer()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer()
    for _ in range(5):
        x.copy_(draw(*x.shape))
        y.fill_(float("nan"))
        graph.replay()
        assert torch.equal(y.clone(), layer())


ROUTINGS = {
    "qwen3": (128, 2048, Routing(num_chosen=8), False),
    "gpt-oss": (32, 2880, Routing(num_chosen=4), False),
    "deepseek-v2": (
        160,
        5120,
        Routing(num_chosen=6, is_normed=False, factor=16.0, groups=Groups(count=8, num_chosen=3, num_best=1)),
        False,
    ),
    "deepseek-v3": (
        256,
        7168,
        Routing(
            num_chosen=8,
            scoring=Scoring.SIGMOID,
            factor=2.5,
            groups=Groups(count=8, num_chosen=4, num_best=2),
        ),
        True,
    ),
}


@pytest.mark.parametrize("tokens", [1, 30, 900])
@pytest.mark.parametrize("name", ROUTINGS)
def test_route(name: str, tokens: int) -> None:
    num_experts, width, routing, has_choice_bias = ROUTINGS[name]
    x, weight = draw(tokens, width), draw(num_experts, width) / width**0.5
    choice_bias = torch.randn(num_experts, device="cuda") if has_choice_bias else None
    torch.cuda.synchronize()
    found = _by_expert(*route.on(CUDA)(x, weight, None, choice_bias, routing), num_experts)
    truth = _by_expert(*route.plain(x, weight, None, choice_bias, routing), num_experts)
    # Logits differ in their last bits, so two experts that are nearly equal may change places.
    agree = (found - truth).abs().amax(1) < 1e-4
    assert agree.float().mean() > 0.99


def test_route_is_the_same_in_any_batch() -> None:
    num_experts, width, routing, _ = ROUTINGS["qwen3"]
    run, x, weight = route.on(CUDA), draw(600, width), draw(num_experts, width)
    crowd = run(x, weight, None, None, routing)
    for rows in (slice(0, 1), slice(7, 40), slice(599, 600)):
        for alone, together in zip(run(x[rows], weight, None, None, routing), crowd, strict=True):
            assert torch.equal(alone, together[rows])


def _by_expert(experts_TK: torch.Tensor, weights_TK: torch.Tensor, num_experts: int) -> torch.Tensor:
    empty_TX = torch.zeros(len(experts_TK), num_experts, device="cuda")
    return empty_TX.scatter_(1, experts_TK.long(), weights_TK)
