"""Mamba-2's recurrence in matrix form and interpreted, against the plain form; how a prompt is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from octavo.ops.ssd import SSDWeights, ssd, ssd_cpu
from octavo.ops.step_rows import example_rows

kernels = pytest.importorskip("octavo.ops.triton.ssd")
pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled here: tests/gpu covers them"
)
FORMS = [pytest.param(ssd_cpu, id="cpu"), pytest.param(kernels.ssd, id="triton")]
STATES = 5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("index", range(len(list(ssd.examples()))))
def test_equals_the_plain_form(form: Callable[..., torch.Tensor], index: int) -> None:
    given, expected, before = (list(ssd.examples())[index] for _ in range(3))
    found, truth = form(*given), ssd.plain(*expected)
    torch.testing.assert_close(found, truth, atol=ssd.tolerance, rtol=ssd.tolerance)
    torch.testing.assert_close(given[STATES], expected[STATES], atol=ssd.tolerance, rtol=ssd.tolerance)
    assert not torch.equal(expected[STATES], before[STATES])
    for place in (0, 1, 2, 3):
        assert torch.equal(given[place], before[place])
    untouched = [row for row in range(6) if row not in given[6].rows_S[: given[6].num_seqs - 2].tolist()]
    assert torch.equal(given[STATES][untouched], before[STATES][untouched])


@pytest.mark.parametrize("form", FORMS)
def test_narrow_types_keep_their_state_in_float32(form: Callable[..., torch.Tensor]) -> None:
    """Float16 alone: Triton's interpreter multiplies bfloat16 matrices bit pattern by bit pattern."""
    for example, same in zip(ssd.examples(), ssd.examples(), strict=True):
        given = [x.half() for x in example[:4]] + list(example[4:])
        expected = [x.half().float() for x in same[:4]] + list(same[4:])
        found, truth = form(*given), ssd.plain(*expected)
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.float(), truth, atol=0.05, rtol=0.02)
        torch.testing.assert_close(given[STATES], expected[STATES], atol=0.05, rtol=0.02)


def prompt(num_tokens: int) -> tuple[list[torch.Tensor], SSDWeights]:
    generator = torch.Generator().manual_seed(num_tokens)
    parts = [torch.randn(num_tokens, columns, generator=generator) for columns in (48, 32, 32, 3)]
    weights = SSDWeights(torch.randn(3), torch.randn(3), torch.randn(3), (0.0, torch.inf))
    return parts, weights


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cuts", [(1, 2, 3), (63, 64, 65), (64,), (1, 130), (17, 100)])
def test_a_prompt_may_be_cut_anywhere(form: Callable[..., torch.Tensor], cuts: tuple[int, ...]) -> None:
    parts, weights = prompt(140)
    whole_state, state = torch.full((2, 1, 3, 16, 32), torch.nan)
    whole = ssd.plain(*parts, weights, whole_state, example_rows((0, 0, 140)), False)
    found, first = [], 0
    for end in (*cuts, 140):
        step = example_rows((0, first, end - first))
        found.append(form(*(part[first:end] for part in parts), weights, state, step, False))
        first = end
    torch.testing.assert_close(torch.cat(found), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state, whole_state, atol=1e-4, rtol=1e-4)


def test_by_token_a_cut_changes_no_bit() -> None:
    parts, weights = prompt(70)
    results: list[Any] = []
    for cuts in ((70,), (1, 2, 40, 70), (33, 70)):
        state, found, first = torch.zeros(1, 3, 16, 32), [], 0
        for end in cuts:
            step = example_rows((0, first, end - first))
            found.append(kernels.ssd(*(part[first:end] for part in parts), weights, state, step, True))
            first = end
        results.append((torch.cat(found), state))
    for y, state in results[1:]:
        assert torch.equal(y, results[0][0]) and torch.equal(state, results[0][1])
