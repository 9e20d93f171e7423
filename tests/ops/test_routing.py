"""Routing by data equals the routers of transformers, and obeys its own rules."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from octavo.ops.routing import Groups, Routing, Scoring, choose_plain, route


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def by_expert(experts_TK: torch.Tensor, weights_TK: torch.Tensor, num_experts: int) -> torch.Tensor:
    """Weights [T, X]: two routers are the same if these are, in whichever order they choose."""
    return torch.zeros(len(experts_TK), num_experts).scatter_(1, experts_TK.long(), weights_TK)


GROUPS = {"n_group": 4, "topk_group": 2}
ROUTERS: dict[str, tuple[str, str, dict[str, Any], Routing]] = {
    "greedy": (
        "deepseek_v2",
        "DeepseekV2TopkRouter",
        {"topk_method": "greedy", "n_routed_experts": 12, "num_experts_per_tok": 3},
        Routing(num_chosen=3, is_normed=False),
    ),
    "groups by their best": (
        "deepseek_v2",
        "DeepseekV2TopkRouter",
        {
            "topk_method": "group_limited_greedy",
            "n_routed_experts": 12,
            "num_experts_per_tok": 3,
            "routed_scaling_factor": 16.0,
            **GROUPS,
        },
        Routing(num_chosen=3, is_normed=False, factor=16.0, groups=Groups(count=4, num_chosen=2, num_best=1)),
    ),
    "groups by their best two, sigmoids, a bias for the choice": (
        "deepseek_v3",
        "DeepseekV3TopkRouter",
        {"n_routed_experts": 24, "num_experts_per_tok": 5, "routed_scaling_factor": 2.5, **GROUPS},
        Routing(
            num_chosen=5,
            scoring=Scoring.SIGMOID,
            factor=2.5,
            groups=Groups(count=4, num_chosen=2, num_best=2),
        ),
    ),
    "softmax over the chosen, a bias": (
        "gpt_oss",
        "GptOssTopKRouter",
        {"num_local_experts": 12, "num_experts_per_tok": 4},
        Routing(num_chosen=4),
    ),
    "softmax over the chosen": (
        "granitemoe",
        "GraniteMoeTopKRouter",
        {"num_local_experts": 12, "num_experts_per_tok": 4},
        Routing(num_chosen=4),
    ),
}


def theirs(module: str, router: str, entries: dict[str, Any]) -> Any:
    """A router of transformers with random numbers everywhere."""
    models = importlib.import_module(f"transformers.models.{module}.modeling_{module}")
    config = AutoConfig.for_model(module, hidden_size=48, num_attention_heads=4, **entries)
    made = getattr(models, router)(config)
    for number, tensor in enumerate([*made.parameters(), *made.buffers()]):
        tensor.data = draw(*tensor.shape, seed=number)
    return made


@pytest.mark.parametrize("name", ROUTERS)
def test_equals_transformers(name: str) -> None:
    module, router_name, entries, routing = ROUTERS[name]
    router, x_TE = theirs(module, router_name, entries), draw(50, 48)
    with torch.inference_mode():
        _, weights_TK, experts_TK = router(x_TE)
    num_experts = len(router.weight)
    bias, choice_bias = getattr(router, "bias", None), getattr(router, "e_score_correction_bias", None)
    ours = route.plain(x_TE, router.weight.data, bias, choice_bias, routing)
    assert [tensor.dtype for tensor in ours] == [torch.int32, torch.float32]
    torch.testing.assert_close(by_expert(*ours, num_experts), by_expert(experts_TK, weights_TK, num_experts))


@pytest.mark.parametrize("example", list(route.examples()), ids=lambda example: f"{len(example[0])} tokens")
def test_kernels_equal_the_plain_form(example: tuple[Any, ...]) -> None:
    found, truth = interpreted().route(*example), route.plain(*example)
    assert found[0].dtype == torch.int32
    torch.testing.assert_close(
        by_expert(*found, len(example[1])), by_expert(*truth, len(example[1])), atol=1e-5, rtol=1e-5
    )


def test_kernels_choose_the_same_in_any_batch() -> None:
    """Whole numbers: their sums are the same in any order."""
    x_TE, weight_XE, *rest = list(route.examples())[3]
    x_TE, weight_XE = x_TE.round(), (64 * weight_XE).round() / 64
    rest = [weight_XE, *rest]
    crowd = interpreted().route(x_TE, *rest)
    for rows in (slice(0, 1), slice(5, 16), slice(16, 17)):
        for alone, together in zip(interpreted().route(x_TE[rows], *rest), crowd, strict=True):
            assert torch.equal(alone, together[rows])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_kernels_name_only_experts_that_exist_whatever_the_numbers() -> None:
    x_TE, weight_XE, *rest = list(route.examples())[1]
    loud_TE = x_TE.clone()
    loud_TE[:2] = float("nan")
    loud_TE[3] = float("inf")
    experts_TK, weights_TK = interpreted().route(loud_TE, weight_XE, *rest)
    assert experts_TK.min() >= 0 and experts_TK.max() < len(weight_XE)
    assert weights_TK[:2].isnan().all()
    quiet = interpreted().route(x_TE, weight_XE, *rest)
    assert torch.equal(experts_TK[4], quiet[0][4]) and torch.equal(weights_TK[4], quiet[1][4])


def interpreted() -> Any:
    if torch.cuda.is_available():
        pytest.skip("kernels are compiled here: tests/gpu covers them")
    return pytest.importorskip("octavo.ops.triton.routing")


def test_the_best_comes_first_and_sums_are_one() -> None:
    experts_TK, weights_TK = choose_plain(draw(20, 9), None, Routing(num_chosen=4))
    assert (weights_TK.diff(dim=1) <= 0).all()
    assert all(len(set(row)) == 4 for row in experts_TK.tolist())
    torch.testing.assert_close(weights_TK.sum(-1), torch.ones(20))


def test_a_choice_bias_changes_who_is_chosen_and_no_weight() -> None:
    logits_TX, bias_X = draw(6, 8), torch.zeros(8)
    bias_X[3] = 10.0
    experts_TK, weights_TK = choose_plain(logits_TX, bias_X, Routing(num_chosen=2, is_normed=False))
    assert (experts_TK[:, 0] == 3).all()
    torch.testing.assert_close(weights_TK[:, 0], logits_TX.softmax(-1)[:, 3])


def test_sigmoids_that_are_all_zero_give_no_nan() -> None:
    _, weights_TK = choose_plain(
        torch.full((1, 4), -200.0), None, Routing(num_chosen=2, scoring=Scoring.SIGMOID)
    )
    assert weights_TK.tolist() == [[0.0, 0.0]]
