"""Drawing against exact integer arithmetic in Python."""

import itertools

import torch

from octavo.ops.sampling.draw import ONE, draw, exact_weights, mass


def by_hand(weights: list[int], uniform: float) -> int:
    target = min(int(uniform * float(sum(weights))), sum(weights) - 1)
    return next(i for i, end in enumerate(itertools.accumulate(weights)) if end > target)


def test_draw_equals_integers():
    generator = torch.Generator().manual_seed(3)
    p = torch.softmax(torch.randn(40, 640, generator=generator) * 6, -1)
    u = torch.rand(40, generator=generator, dtype=torch.float64)
    weights = exact_weights(p)
    expected = [
        by_hand([int(w) for w in row], x) for row, x in zip(weights.tolist(), u.tolist(), strict=True)
    ]
    assert draw(weights, u).tolist() == expected


def test_ends_of_the_unit_interval_fall_on_the_first_and_last_possible_index():
    weights = torch.zeros(2, 256)
    weights[:, 70], weights[:, 200] = 3.0, 5.0
    u = torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64)
    assert draw(weights, u).tolist() == [70, 200]


def test_the_last_uniform_number_stays_inside_any_total():
    totals = torch.cat((2.0 ** torch.arange(41), 2.0 ** torch.arange(2, 41) - 1, 3.0 ** torch.arange(20)))
    weights = torch.zeros(len(totals), 64)
    weights[:, 5] = totals
    last = torch.full((len(totals),), 1 - 2.0**-53, dtype=torch.float64)
    assert draw(weights, last).eq(5).all()


def test_masses_are_exact_where_float32_sums_are_not():
    weights = torch.ones(1, 32)
    weights[0, 0] = 2.0**39
    assert mass(weights).item() == 2**39 + 31


def test_a_border_belongs_to_the_later_index():
    weights = torch.zeros(3, 64)
    weights[:, 0], weights[:, 1] = 1.0, 1.0
    u = torch.tensor([0.4999999, 0.5, 0.5000001], dtype=torch.float64)
    assert draw(weights, u).tolist() == [0, 1, 1]


def test_weights_are_whole_numbers_that_floats_hold():
    p = torch.softmax(torch.randn(4, 1000) * 8, -1)
    weights = exact_weights(p)
    assert torch.equal(weights, weights.round())
    assert (weights.double() / ONE - p.double()).abs().max() <= 2.0**-41
