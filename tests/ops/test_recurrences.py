"""Recurrences in matrix form and interpreted, against their plain forms; and that a prompt may be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch

from octavo.ops.contract import Op
from octavo.ops.gated_delta import DeltaWeights, gated_delta
from octavo.ops.ssd import SSDWeights, ssd
from octavo.ops.step_rows import example_rows
from tests.ops.test_ops import provider

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="kernels are compiled here: tests/gpu covers them"
)


class Recurrence(NamedTuple):
    op: Op[..., Any]
    columns: Sequence[int]
    """Of each input of 3 heads of 16 values with 32 numbers of state."""
    weights: Any


CASES = {
    "ssd": Recurrence(
        ssd,
        (48, 32, 32, 3),
        SSDWeights(torch.tensor([0.5, -1.0, 1.0]), torch.randn(3), torch.randn(3), (0.0, torch.inf)),
    ),
    "gated_delta": Recurrence(
        gated_delta, (32, 32, 48, 3, 3), DeltaWeights(torch.tensor([0.5, -1.0, 0.0]), torch.randn(3))
    ),
}
both = pytest.mark.parametrize("name", CASES)
on = pytest.mark.parametrize("device", ["cpu", "cuda"])


def state_of(op: Op[..., Any], example: Sequence[Any]) -> torch.Tensor:
    state: torch.Tensor = example[op.writes[0]]
    return state


@both
@on
def test_a_provider_equals_the_plain_form(name: str, device: str) -> None:
    op = CASES[name].op
    run, close = provider(op, device), {"atol": op.tolerance, "rtol": op.tolerance}
    for given, expected, before in zip(op.examples(), op.examples(), op.examples(), strict=True):
        torch.testing.assert_close(run(*given), op.plain(*expected), **close)
        torch.testing.assert_close(state_of(op, given), state_of(op, expected), **close)
        for i, value in enumerate(given):
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, before[i]) is (i not in op.writes), f"argument {i}"
        step = given[-2]
        used = step.rows_S[: step.num_seqs - 2].tolist()
        others = [row for row in range(6) if row not in used]
        assert torch.equal(state_of(op, given)[others], state_of(op, before)[others])


@both
@on
def test_narrow_types_keep_their_state_in_float32(name: str, device: str) -> None:
    """Float16 alone: Triton's interpreter multiplies bfloat16 matrices bit pattern by bit pattern."""
    op = CASES[name].op
    run = provider(op, device)

    def narrow(example: Sequence[Any], dtype: torch.dtype) -> list[Any]:
        return [
            x.half().to(dtype) if isinstance(x, torch.Tensor) and i not in op.float32_arguments else x
            for i, x in enumerate(example)
        ]

    for example, same in zip(op.examples(), op.examples(), strict=True):
        given, expected = narrow(example, torch.float16), narrow(same, torch.float32)
        found, truth = run(*given), op.plain(*expected)
        assert found.dtype == torch.float16
        torch.testing.assert_close(found.float(), truth, atol=0.05, rtol=0.02)
        torch.testing.assert_close(state_of(op, given), state_of(op, expected), atol=0.05, rtol=0.02)


def run_in_cuts(
    run: Callable[..., torch.Tensor], case: Recurrence, ends: Sequence[int], is_by_token: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """A prompt of ends[-1] tokens, step by step: (y, the state behind)."""
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(ends[-1], columns, generator=generator) for columns in case.columns]
    state, found, first = torch.full((1, 3, 16, 32), torch.nan), [], 0
    for end in ends:
        step = example_rows((0, first, end - first))
        found.append(run(*(part[first:end] for part in parts), case.weights, state, step, is_by_token))
        first = end
    return torch.cat(found), state


@both
@on
@pytest.mark.parametrize("cuts", [(1, 2, 3), (31, 32, 33), (63, 64, 65), (17, 100)])
def test_a_prompt_may_be_cut_anywhere(name: str, device: str, cuts: tuple[int, ...]) -> None:
    case = CASES[name]
    whole = run_in_cuts(case.op.plain, case, [110])
    found = run_in_cuts(provider(case.op, device), case, [*cuts, 110])
    torch.testing.assert_close(found, whole, atol=case.op.tolerance, rtol=case.op.tolerance)


@both
def test_by_token_a_cut_changes_no_bit(name: str) -> None:
    case = CASES[name]
    run = provider(case.op, "cuda")
    whole = run_in_cuts(run, case, [20], is_by_token=True)
    for cuts in ((1, 2, 11, 20), (9, 20)):
        for one, other in zip(run_in_cuts(run, case, cuts, is_by_token=True), whole, strict=True):
            assert torch.equal(one, other)


def test_keys_that_repeat_do_not_cancel() -> None:
    """A prompt of one token over and over: powers of the triangular system would grow beyond all use."""
    case = CASES["gated_delta"]
    weights = DeltaWeights(torch.full((3,), -9.0), torch.zeros(3))
    generator = torch.Generator().manual_seed(2)
    parts = [torch.randn(1, columns, generator=generator).expand(64, -1) for columns in case.columns]
    parts[3] = torch.full((64, 3), 6.0)
    parts[4] = torch.zeros(64, 3)
    results = []
    for run in (gated_delta.plain, provider(gated_delta, "cpu"), provider(gated_delta, "cuda")):
        state = torch.zeros(1, 3, 16, 32)
        results.append(run(*parts, weights, state, example_rows((0, 0, 64)), False))
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(results[2], results[0], atol=1e-4, rtol=1e-4)
