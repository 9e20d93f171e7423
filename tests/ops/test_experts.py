"""The experts op: its forms for the CPU and, interpreted, for GPUs, against the plain one and themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from octavo.base.errors import EngineError
from octavo.ops.experts import SILU, SwiGLU, experts, experts_by_group

kernels = pytest.importorskip("octavo.ops.triton.experts")
pairs = pytest.importorskip("octavo.ops.triton.expert_pairs")
tiles = pytest.importorskip("octavo.ops.triton.expert_tiles")
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled here: tests/gpu covers them"
)

EXAMPLES = list(experts.examples())
FORMS: dict[str, Callable[..., torch.Tensor]] = {
    "cpu": experts_by_group,
    "cuda": kernels.experts,
    "invariant": kernels.experts_invariant,
}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{len(example[0])} tokens")
def test_equals_the_plain_form_and_leaves_its_arguments(form: str, example: tuple[Any, ...]) -> None:
    before = [value.clone() if isinstance(value, torch.Tensor) else value for value in example]
    found, truth = FORMS[form](*example), experts.plain(*before)
    torch.testing.assert_close(found, truth, atol=experts.tolerance, rtol=experts.tolerance)
    for value, old in zip(example, before, strict=True):
        assert not isinstance(value, torch.Tensor) or torch.equal(value, old)


@pytest.mark.parametrize("form", FORMS)
def test_no_tokens(form: str) -> None:
    x, chosen, weights, *matrices = EXAMPLES[0]
    assert FORMS[form](x[:0], chosen[:0], weights[:0], *matrices).shape == (0, x.shape[1])


@pytest.mark.parametrize("form", tiles.FORMS, ids=lambda form: form.name)
def test_every_form_and_cut_does_all_rows_and_columns_once(form: Any) -> None:
    """Whole numbers, so that any order gives the same sum and a doubled or forgotten product shows."""
    x, chosen, _, gate_up, down, *_ = EXAMPLES[2]  # 5 tokens, 2 of 8 experts
    x, gate_up, down = ((tensor * 2).round() for tensor in (x, gate_up, down))
    weights = torch.ones_like(chosen, dtype=torch.float32)
    linear = SwiGLU(alpha=0.0, offset=0.0)  # gate * up / 2
    truth = experts.plain(x, chosen, weights, gate_up, down, None, None, linear)
    for block_o, block_i in ((16, 16), (32, 64), (64, 32)):
        tile = tiles.ExpertTile(block_o, block_i, warps=4, stages=1)
        found = kernels.launch(
            *(x, chosen, weights, gate_up, down, None, None, linear),
            form=form,
            gate_up_tile=tile,
            down_tile=tile,
        )
        assert torch.equal(found, truth)


@pytest.mark.parametrize("form", FORMS)
def test_narrow_types_are_summed_in_float32(form: str) -> None:
    """Float16 alone: Triton's interpreter multiplies bfloat16 matrices bit pattern by bit pattern."""
    example = [
        value.half()
        if isinstance(value, torch.Tensor) and number != 2 and value.is_floating_point()
        else value
        for number, value in enumerate(EXAMPLES[4])
    ]
    exact = [value.float() if isinstance(value, torch.Tensor) and number != 1 else value
             for number, value in enumerate(example)]  # fmt: skip
    found, truth = FORMS[form](*example), experts.plain(*exact)
    assert found.dtype == torch.float16
    assert (found - truth).norm() < 2**-9 * truth.norm()


def test_invariant_a_token_is_the_same_bits_in_any_batch() -> None:
    """Whole numbers here, for NumPy's products depend on a row's place; tests/gpu has real ones."""
    x, chosen, weights, gate_up, down, *_ = EXAMPLES[5]
    x, linear = x.sign(), SwiGLU(alpha=0.0, offset=0.0)  # gate * up / 2
    matrices = [gate_up.sign(), down.sign(), None, None, linear]
    crowd = kernels.experts_invariant(x, chosen, weights, *matrices)
    for rows in (slice(0, 1), slice(3, 20), slice(250, 300), slice(299, 300)):
        alone = kernels.experts_invariant(x[rows], chosen[rows], weights[rows], *matrices)
        assert torch.equal(alone, crowd[rows])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [6, 40])
def test_other_tokens_cannot_reach_a_token(form: str, tokens: int) -> None:
    x, chosen, weights, *matrices = EXAMPLES[5]
    x, chosen, weights = x[:tokens], chosen[:tokens], weights[:tokens]
    quiet = FORMS[form](x, chosen, weights, *matrices)
    loud, loud_weights = x.clone(), weights.clone()
    loud[:3], loud[4:] = float("inf"), float("nan")
    loud_weights[4:] = float("nan")
    found = FORMS[form](loud, chosen, loud_weights, *matrices)
    torch.testing.assert_close(found[3], quiet[3], atol=0, rtol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "chosen", "num_experts", "block_p", "at_once"),
    [(1, 1, 3, 16, 1024), (700, 4, 9, 16, 1024), (90, 2, 200, 64, 64), (700, 4, 9, 128, 4096)],
)
def test_pairs_are_sorted_and_cut_into_tiles_of_one_expert(
    tokens: int, chosen: int, num_experts: int, block_p: int, at_once: int
) -> None:
    experts_TK = draw(tokens, num_experts).topk(chosen).indices.int()
    found = pairs.sort_pairs(experts_TK, num_experts, block_p, at_once)
    order = experts_TK.flatten().argsort(stable=True)
    assert found.pairs_P.tolist() == order.tolist()
    num_tiles, *table = found.tiles.tolist()
    assert num_tiles <= found.max_tiles
    expected = []
    ends = torch.bincount(experts_TK.flatten(), minlength=num_experts).cumsum(0).tolist()
    for expert, (first, end) in enumerate(zip([0, *ends], ends, strict=False)):
        expected += [number for place in range(first, end, block_p) for number in (expert, place, end)]
    assert table[: 3 * num_tiles] == expected


def test_there_is_a_form_for_every_number_of_tokens() -> None:
    names = [tiles.form_for(tokens).name for tokens in (1, 16, 17, 128, 129, 1024, 1025, 10**6)]
    assert names == ["few", "few", "some", "some", "many", "many", "most", "most"]


def test_tiles_fit_the_shared_memory() -> None:
    tile = tiles.usual_tile(128, 2048, 2)
    assert tiles.fitted(tile, 128, 2, 227 * 1024) == tile
    small = tiles.fitted(tile, 128, 2, 99 * 1024)
    assert small.stages < tile.stages
    assert small.shared_bytes(128, 2) <= 99 * 1024


def test_strided_weights_are_refused() -> None:
    x, chosen, weights, gate_up, down, *_ = EXAMPLES[0]
    with pytest.raises(EngineError, match="row by row"):
        kernels.experts(x, chosen, weights, gate_up, down.transpose(1, 2))


def test_gates_are_what_their_families_say() -> None:
    gate_up_PG = draw(7, 10) * 5
    gate, up = gate_up_PG[:, ::2], gate_up_PG[:, 1::2]
    torch.testing.assert_close(SILU(gate_up_PG), torch.nn.functional.silu(gate) * up)
    capped, bounded = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    expected = capped * torch.sigmoid(1.702 * capped) * (bounded + 1)
    torch.testing.assert_close(SwiGLU(alpha=1.702, limit=7.0, offset=1.0)(gate_up_PG), expected)
    assert SILU.limit == math.inf
