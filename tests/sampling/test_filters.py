"""top_k, top_p, min_p and temperature against transformers' own, and the quick way against the full one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from octavo.ops.sampling import filters as filters_module
from octavo.ops.sampling.draw import exact_weights
from octavo.ops.sampling.filters import (
    draw_filtered,
    draw_unfiltered,
    full_threshold,
    probabilities,
)
from octavo.ops.sampling.settings import NO_TOP_K, Filters


def filters_of(rows: list[tuple[float, int, float, float]]) -> Filters:
    """Rows of (temperature, top_k, top_p, min_p); top_k 0 is none."""
    temperature, top_k, top_p, min_p = zip(*rows, strict=True)
    return Filters(
        temperature_R=torch.tensor(temperature, dtype=torch.float64),
        top_k_R=torch.tensor([k or NO_TOP_K for k in top_k]),
        top_p_R=torch.tensor(top_p, dtype=torch.float64),
        min_p_R=torch.tensor(min_p, dtype=torch.float64),
    )


def distribution(logits: torch.Tensor, filters: Filters) -> torch.Tensor:
    return probabilities(logits, logits.amax(-1), filters.temperature_R)


def kept(logits: torch.Tensor, filters: Filters) -> torch.Tensor:
    p = distribution(logits, filters)
    return (p >= full_threshold(p, exact_weights(p), filters).unsqueeze(1))[:, : logits.shape[1]]


def random_logits(rows: int, vocab: int, seed: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


SETTINGS = [
    (1.0, 50, 1.0, 0.0),
    (0.7, 0, 0.9, 0.0),
    (1.3, 0, 0.5, 0.0),
    (0.6, 40, 0.95, 0.0),
    (1.0, 0, 1.0, 0.05),
    (1.5, 100, 0.8, 0.02),
    (1.0, 1, 1.0, 0.0),
    (2.0, 700, 0.99, 0.001),
    (1.0, 0, 1e-9, 0.0),
    (1.0, 0, 1.0, 1.0),
    (100.0, 0, 0.9, 0.0),
    (0.01, 0, 0.9, 0.0),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("vocab", [1000, 8192])
def test_kept_tokens_equal_transformers(setting, vocab):
    temperature, top_k, top_p, min_p = setting
    logits = random_logits(6, vocab, seed=vocab)
    expected = TemperatureLogitsWarper(temperature)(None, logits)
    if min_p:
        expected = MinPLogitsWarper(min_p)(None, expected)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    assert torch.equal(kept(logits, filters_of([setting] * 6)), expected.isfinite())


def test_temperature_equals_transformers():
    logits = random_logits(3, 1000, seed=1)
    for temperature in (0.3, 1.0, 2.5):
        p = distribution(logits, filters_of([(temperature, 0, 1.0, 0.0)] * 3))[:, :1000]
        expected = torch.softmax(TemperatureLogitsWarper(temperature)(None, logits), -1)
        torch.testing.assert_close(p, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0, 12.0])
@pytest.mark.parametrize("vocab", [500, 5000, 16384])
def test_candidates_draw_what_the_whole_row_draws(spread, vocab):
    """Rounded logits make ties, also across the border of the candidates."""
    for rounding in (None, 0.5):
        logits = random_logits(len(SETTINGS), vocab, seed=5, spread=spread)
        if rounding:
            logits = (logits / rounding).round() * rounding
        filters = filters_of(SETTINGS)
        p = distribution(logits, filters)
        weights = exact_weights(p) * (p >= full_threshold(p, exact_weights(p), filters).unsqueeze(1))
        for u in (0.0, 0.1, 0.37, 0.62, 0.93, 1 - 2.0**-53):
            uniform = torch.full((len(SETTINGS),), u, dtype=torch.float64)
            expected = filters_module.draw(weights, uniform)
            assert torch.equal(draw_filtered(p, filters, uniform), expected)


def test_peaked_rows_need_no_full_search(monkeypatch):
    """What real models give stays on the quick way; flat rows do not."""
    searched = []
    full = filters_module.full_threshold

    def watch(p, weights, filters):
        searched.append(len(p))
        return full(p, weights, filters)

    monkeypatch.setattr(filters_module, "full_threshold", watch)
    filters = filters_of([(1.0, 50, 0.95, 0.0), (0.8, 0, 0.95, 0.0), (1.0, 0, 1.0, 0.1)])
    uniform = torch.full((3,), 0.5, dtype=torch.float64)
    draw_filtered(distribution(random_logits(3, 32768, seed=2, spread=5.0), filters), filters, uniform)
    assert searched == []
    draw_filtered(distribution(random_logits(3, 32768, seed=2, spread=0.1), filters), filters, uniform)
    assert searched == [2]  # top_p and min_p; top_k is quick on any row


@pytest.mark.parametrize("vocab", [64, 8192])
def test_a_nucleus_that_ends_exactly_on_top_p_takes_no_more(vocab):
    """Exact probabilities, out of order; the largest uniform number falls on the last kept token."""
    p = torch.zeros(4, vocab)
    p[:, [9, 3, 40, 20]] = torch.tensor([0.5, 0.25, 0.1875, 0.0625])
    filters = filters_of([(1.0, 0, top_p, 0.0) for top_p in (0.5, 0.75, 0.75001, 0.9375)])
    assert full_threshold(p, exact_weights(p), filters).tolist() == [0.5, 0.25, 0.1875, 0.1875]
    last = torch.full((4,), 1 - 2.0**-53, dtype=torch.float64)
    assert draw_filtered(p, filters, last).tolist() == [9, 9, 40, 40]
    assert draw_filtered(p, filters, torch.zeros(4, dtype=torch.float64)).tolist() == [9, 3, 3, 3]


def test_tokens_of_equal_probability_share_their_fate():
    logits = torch.full((2, 300), -5.0)
    logits[:, [7, 100, 250]] = 2.0
    result = kept(logits, filters_of([(1.0, 2, 1.0, 0.0), (1.0, 0, 0.4, 0.0)]))
    assert [row.nonzero().squeeze(1).tolist() for row in result] == [[7, 100, 250]] * 2


def test_tiny_and_huge_temperatures_stay_finite():
    huge = [[3.0e38, 1.0e38, -3.0e38, 0.0], [-3.0e38, -2.0e38, -3.1e38, float("-inf")]]
    small = [[-0.01, -3.0, 0.01, -3.0e38], [-1.0, -2.0, float("-inf"), 0.0]]
    logits = torch.tensor(huge + small)
    for temperature in (5e-324, 1e-45, 1e-6, 1e-3):
        p = distribution(logits, filters_of([(temperature, 0, 1.0, 0.0)] * 4))
        assert p[:, :4].argmax(-1).tolist() == [0, 1, 2, 3]
        assert p.isfinite().all()
        torch.testing.assert_close(p.sum(-1), torch.ones(4))
    assert distribution(logits, filters_of([(100.0, 0, 1.0, 0.0)] * 4)).isfinite().all()


def test_frequencies_follow_the_distribution():
    """One row's settings, 40,000 uniform numbers on an even grid: counts match to one draw per border."""
    count = 40_000
    logits = random_logits(1, 200, seed=9, spread=2.0)
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    plain = filters_of([(0.9, 0, 1.0, 0.0)])
    p = distribution(logits, plain)
    tokens = draw_unfiltered(p.expand(count, -1), uniform)
    assert (torch.bincount(tokens, minlength=200) - p[0, :200].double() * count).abs().max() <= 1.01

    cut = filters_of([(0.9, 30, 0.8, 0.01)])
    is_kept = kept(logits, cut)[0]
    expected = torch.where(is_kept, p[0, :200], 0).double()
    expected = expected / expected.sum() * count
    few = 4_000
    some = draw_filtered(p.expand(few, -1), cut.take(torch.zeros(few, dtype=torch.int64)), uniform[::10])
    assert (torch.bincount(some, minlength=200) - expected / 10).abs().max() <= 1.01


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    vocab=st.integers(1, 700),
    top_k=st.integers(0, 800),
    top_p=st.floats(1e-6, 1.0),
    min_p=st.floats(0.0, 1.0),
    temperature=st.floats(0.05, 50.0),
)
def test_any_settings_keep_the_best_token_and_obey_each_filter(seed, vocab, top_k, top_p, min_p, temperature):
    logits = random_logits(2, vocab, seed).mul(4).round() / 4
    top_k = top_k if top_k < vocab else 0
    filters = filters_of([(temperature, top_k, top_p, min_p)] * 2)
    result, p = kept(logits, filters), distribution(logits, filters)[:, :vocab]
    for row in range(2):
        assert result[row, logits[row].argmax()]
        lowest = p[row][result[row]].min()
        assert lowest >= p[row].max() * torch.tensor(min_p, dtype=torch.float32)
        if top_k:
            assert (p[row] > lowest).sum() < top_k
