"""Thresholds, places and random numbers of the sampling kernels, each against its definition, interpreted."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl

from octavo.ops.sampling.draw import exact_weights as plain_weights
from octavo.ops.sampling.random import uniforms
from octavo.ops.sampling.settings import KEYS, settings_line
from octavo.ops.triton.sampling_pick import row_cut
from octavo.ops.triton.sampling_weights import cut, exact_weights, place_of, uniform_at

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="runs natively there")


@triton.jit
def cut_kernel(bits_ptr, weights_ptr, limits_ptr, found_ptr, COUNT: tl.constexpr):
    index = tl.arange(0, COUNT)
    bits, weights = tl.load(bits_ptr + index), tl.load(weights_ptr + index)
    tl.store(found_ptr + tl.program_id(0), cut(bits, weights, tl.load(limits_ptr + tl.program_id(0))))


def kept_by_definition(bits: torch.Tensor, weights: torch.Tensor, limit: int) -> list[bool]:
    return [int(weights[bits > value].sum()) < limit for value in bits.tolist()]


def test_cut_keeps_what_has_less_than_the_limit_above_it() -> None:
    bits = torch.tensor([5, 0, 9, 9, 3, 0x3F800000, 5, -1], dtype=torch.int32)
    weights = torch.tensor([2, 1, 3, 2**40, 0, 4, 1, 0])
    limits = torch.tensor([1, 4, 5, 2**40 + 7, 2**40 + 8, 2**40 + 10, 2**40 + 11, 2**40 + 12, 2**50])
    found = torch.zeros(len(limits), dtype=torch.int32)
    cut_kernel[(len(limits),)](bits, weights, limits, found, COUNT=8)
    for limit, border in zip(limits.tolist(), found.tolist(), strict=True):
        expected = kept_by_definition(bits[:-1], weights[:-1], limit)
        assert (bits[:-1] >= border).tolist() == expected, limit
    assert found[0] == 0x3F800000 and found[-1] == -1


@triton.jit
def row_cut_kernel(
    row_ptr, limits_ptr, norm_ptr, found_ptr, BY_MASS: tl.constexpr, VOCAB: tl.constexpr, TILE: tl.constexpr
):
    limit = tl.load(limits_ptr + tl.program_id(0))
    border = row_cut(row_ptr, -1, limit, 0.0, 1.0, tl.load(norm_ptr), BY_MASS, VOCAB, TILE)
    tl.store(found_ptr + tl.program_id(0), border)


@pytest.mark.parametrize("by_mass", [False, True])
def test_row_cut_keeps_what_has_less_than_the_limit_above_it(by_mass: bool) -> None:
    """Whole logits and a steepness of 1 make powers of two, exact on any device."""
    x = torch.randint(-9, 1, (50,), generator=torch.Generator().manual_seed(0)).float()
    x[[7, 20]] = torch.tensor([0.0, -torch.inf])
    p = torch.exp2(x) * 0.125
    bits = p.view(torch.int32)
    weights = plain_weights(p).long() if by_mass else torch.ones(50, dtype=torch.int64)
    borders = {int(weights[bits > value].sum()) for value in bits.tolist()}
    limits = torch.tensor(sorted({max(1, border + step) for border in borders for step in (0, 1)}))
    found = torch.zeros(len(limits), dtype=torch.int32)
    norm = torch.tensor([0.125])
    row_cut_kernel[(len(limits),)](x, limits, norm, found, BY_MASS=by_mass, VOCAB=50, TILE=16)
    for limit, border in zip(limits.tolist(), found.tolist(), strict=True):
        assert (bits >= border).tolist() == kept_by_definition(bits, weights, limit), limit


@triton.jit
def place_kernel(weights_ptr, targets_ptr, found_ptr, COUNT: tl.constexpr):
    weights = tl.load(weights_ptr + tl.arange(0, COUNT))
    tl.store(found_ptr + tl.program_id(0), place_of(weights, tl.load(targets_ptr + tl.program_id(0))))


def test_a_border_belongs_to_the_later_place() -> None:
    weights = torch.tensor([0, 1, 1, 0, 2**40, 0, 0, 5])
    targets = torch.tensor([0, 1, 2, 3, 2**40 + 1, 2**40 + 2, 2**40 + 6])
    found = torch.zeros(len(targets), dtype=torch.int32)
    place_kernel[(len(targets),)](weights, targets, found, COUNT=8)
    assert found.tolist() == [1, 2, 4, 4, 4, 7, 7]


@triton.jit
def uniform_kernel(lines_ptr, positions_ptr, found_ptr, COLUMNS: tl.constexpr):
    row = tl.program_id(0)
    tl.store(found_ptr + row, uniform_at(lines_ptr + row * COLUMNS, tl.load(positions_ptr + row)))


def test_random_numbers_are_those_of_the_plain_form_bit_for_bit() -> None:
    keys = [0, 1, -1, 2**63, 2**64 - 1, 0x123456789ABCDEF0, 2**32, 77]
    lines = torch.tensor(
        [
            settings_line(kind=1, temperature=1.0, top_k=1, top_p=1.0, min_p=0.0, random_key=key)
            for key in keys
        ]
    )
    positions = torch.tensor([0, 5, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 123456, 1])
    found = torch.zeros(len(keys), dtype=torch.float64)
    uniform_kernel[(len(keys),)](lines, positions, found, COLUMNS=lines.shape[1])
    assert torch.equal(found, uniforms(positions, lines[:, KEYS:]))


@triton.jit
def weights_kernel(p_ptr, found_ptr, COUNT: tl.constexpr):
    index = tl.arange(0, COUNT)
    tl.store(found_ptr + index, exact_weights(tl.load(p_ptr + index)))


def test_weights_round_half_to_even() -> None:
    halves = torch.tensor([0.0, 0.25, 0.5, 1.5, 2.5, 3.5, 2.0**22 + 0.5, 2.0**23 - 0.5])
    p = torch.cat((halves * 2.0**-40, torch.rand(116), torch.tensor([1.0, 2.0**-17, 2.0**-60, 3e-39])))
    found = torch.zeros(len(p), dtype=torch.int64)
    weights_kernel[(1,)](p, found, COUNT=128)
    assert torch.equal(found, plain_weights(p).long())
