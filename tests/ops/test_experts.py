"""The experts op: its form for the CPU against the plain one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from octavo.ops.experts import SILU, SwiGLU, experts

FORMS = ["cpu"]


def form(name: str) -> Callable[..., torch.Tensor]:
    return experts.providers.load(name)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("example", list(experts.examples()), ids=lambda example: str(len(example[0])))
def test_equals_the_plain_form_and_leaves_its_arguments(name: str, example: tuple[Any, ...]) -> None:
    before = [value.clone() if isinstance(value, torch.Tensor) else value for value in example]
    found, truth = form(name)(*example), experts.plain(*before)
    torch.testing.assert_close(found, truth, atol=experts.tolerance, rtol=experts.tolerance)
    for value, old in zip(example[:-1], before, strict=False):
        assert not isinstance(value, torch.Tensor) or torch.equal(value, old)


@pytest.mark.parametrize("name", FORMS)
def test_no_tokens(name: str) -> None:
    x, chosen, weights, *matrices = next(iter(experts.examples()))
    assert form(name)(x[:0], chosen[:0], weights[:0], *matrices).shape == (0, x.shape[1])


def test_gates_are_what_their_families_say() -> None:
    gate_up_PG = torch.randn(7, 10, generator=torch.Generator().manual_seed(0)) * 5
    gate, up = gate_up_PG[:, ::2], gate_up_PG[:, 1::2]
    torch.testing.assert_close(SILU(gate_up_PG), torch.nn.functional.silu(gate) * up)
    capped, bounded = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    expected = capped * torch.sigmoid(1.702 * capped) * (bounded + 1)
    torch.testing.assert_close(SwiGLU(alpha=1.702, limit=7.0, offset=1.0)(gate_up_PG), expected)
    assert SILU.limit == math.inf
