"""top_n_sigma, typical_p and XTC against plain references, transformers, and the draws they leave."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_references import softmax, typical, within_sigma, xtc
from sampling_rows import Row, make_table, run_step, sample
from transformers.generation.logits_process import TypicalLogitsWarper

from octavo.messages.params import SamplingParams
from octavo.ops.sampling import shape
from octavo.ops.sampling.draw import exact_weights
from octavo.ops.sampling.filters import full_threshold, probabilities
from octavo.ops.sampling.settings import NO_TOP_K, Filters
from octavo.worker.sampling.sampler import Sampler


def random_logits(rows, vocab, seed=0, spread=3.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def column(*values):
    return torch.tensor(values, dtype=torch.float64).unsqueeze(1)


def test_sigma_equals_the_reference():
    logits = random_logits(6, 3000, seed=1)
    logits[:, ::7] = -torch.inf  # what is masked already counts for nothing
    sigmas = [0.3, 1.0, 1.5, 2.0, 3.0, 50.0]
    kept = shape.within_sigma(logits, column(*sigmas))
    for row, n in enumerate(sigmas):
        assert np.array_equal(kept[row].numpy(), within_sigma(logits[row].double().numpy(), n)), n
    assert shape.within_sigma(logits, column(*[0.0] * 6)).all()


def test_sigma_of_flat_rows_keeps_them_whole():
    assert shape.within_sigma(torch.full((1, 40), 2.5), column(1.0)).all()


@pytest.mark.parametrize("spread", [0.3, 2.0, 6.0])
def test_typical_equals_the_reference_and_transformers(spread):
    logits = random_logits(5, 2048, seed=2, spread=spread)
    p = probabilities(logits, logits.amax(-1), torch.ones(5, dtype=torch.float64))
    for share in (0.05, 0.2, 0.5, 0.9, 0.99):
        kept = shape.typical(p, column(*[share] * 5))
        expected = TypicalLogitsWarper(share)(None, logits).isfinite()
        assert (kept != expected).sum() <= 1  # they cut one token earlier where a sum is just the share
        for row in range(5):
            differs = kept[row].numpy() != typical(p[row].double().numpy(), share)
            assert differs.sum() == 0
    assert shape.typical(p, column(*[1.0] * 5)).all()


@pytest.mark.parametrize("threshold", [0.01, 0.05, 0.1, 0.3])
def test_xtc_leaves_the_least_likely_of_the_top(threshold):
    logits = random_logits(8, 500, seed=3, spread=2.5)
    p = probabilities(logits, logits.amax(-1), torch.ones(8, dtype=torch.float64))[:, :500]
    everything = torch.ones_like(p, dtype=torch.bool)
    on, off = torch.ones(8, 1, dtype=torch.bool), torch.zeros(8, 1, dtype=torch.bool)
    kept = shape.without_top_choices(p, everything, column(*[threshold] * 8), on)
    for row in range(8):
        assert np.array_equal(kept[row].numpy(), xtc(p[row].double().numpy(), threshold))
    assert shape.without_top_choices(p, everything, column(*[threshold] * 8), off).all()


def test_xtc_counts_within_what_was_kept():
    """0.04 of a tenth is 0.4 of it."""
    p = torch.tensor([[0.9, 0.05, 0.04, 0.01]])
    inside = torch.tensor([[False, True, True, True]])
    kept = shape.without_top_choices(p, inside, column(0.35), torch.ones(1, 1, dtype=torch.bool))
    assert kept.tolist() == [[False, False, True, True]]


FILTERS = [
    (0, 1.0, 0.0), (5, 1.0, 0.0), (0, 0.9, 0.0), (0, 1.0, 0.05), (40, 0.8, 0.01), (3, 0.2, 0.5),
    (400, 0.999, 0.0),
]  # fmt: skip


@pytest.mark.parametrize("rounding", [None, 0.5])
def test_sorting_keeps_what_the_thresholds_keep(rounding):
    logits = random_logits(len(FILTERS), 1024, seed=4)
    if rounding:
        logits = (logits / rounding).round() * rounding
    filters = Filters(
        temperature_R=torch.ones(len(FILTERS), dtype=torch.float64),
        top_k_R=torch.tensor([k or NO_TOP_K for k, _, _ in FILTERS]),
        top_p_R=torch.tensor([p for _, p, _ in FILTERS], dtype=torch.float64),
        min_p_R=torch.tensor([m for _, _, m in FILTERS], dtype=torch.float64),
    )
    p = probabilities(logits, logits.amax(-1), filters.temperature_R)
    expected = p >= full_threshold(p, exact_weights(p), filters).unsqueeze(1)
    is_cut = torch.zeros(len(FILTERS), 1, dtype=torch.bool)
    assert torch.equal(shape.inside_filters(p, filters, is_cut), expected)


def drawn(params, logits, count=4000):
    """Tokens of `count` rows with keys of their own, all with these logits."""
    sampler = Sampler(num_rows=count, vocab_size=len(logits), device=torch.device("cpu"))
    for i in range(count):
        sampler.add_row(i, params, i * 7919 + 5, [], [1], 1)
    table = make_table({i: Row(params=params, prompt=[1], output=[]) for i in range(count)}, count, 1)
    step = run_step(sampler, logits.expand(count, -1), range(count), table)
    assert step.failed == {}
    return torch.bincount(step.token_ids, minlength=len(logits)).double() / count


def close(observed, expected, count=4000):
    """Within five standard errors of every frequency."""
    return ((observed - expected).abs() <= 5 * (expected * (1 - expected) / count).sqrt() + 1e-9).all()


def test_draws_follow_what_typical_leaves():
    logits = random_logits(1, 60, seed=5, spread=1.5)[0]
    p = softmax((logits.double() / 0.8).numpy())
    kept = typical(p, 0.6)
    expected = torch.from_numpy(np.where(kept, p, 0.0) / p[kept].sum())
    assert close(drawn(SamplingParams(typical_p=0.6, temperature=0.8), logits), expected)


def test_draws_follow_what_sigma_leaves_at_any_temperature():
    logits = random_logits(1, 60, seed=6, spread=1.5)[0]
    kept = within_sigma(logits.double().numpy(), 1.0)
    for temperature in (0.5, 3.0):
        p = softmax((logits.double() / temperature).numpy()) * kept
        expected = torch.from_numpy(p / p.sum())
        params = SamplingParams(top_n_sigma=1.0, temperature=temperature)
        assert close(drawn(params, logits), expected)


def test_the_coin_falls_as_often_as_it_should_and_is_not_the_draw():
    """With min_p before it: top choices are missing in three of ten draws, and the rest is as it was."""
    logits = random_logits(1, 60, seed=7, spread=1.5)[0]
    p = softmax(logits.double().numpy())
    p = np.where(p >= 0.02 * p.max(), p, 0.0)
    p /= p.sum()
    without = np.where(xtc(p, 0.1), p, 0.0)
    expected = torch.from_numpy(0.7 * p + 0.3 * without / without.sum())
    params = SamplingParams(min_p=0.02, xtc_probability=0.3, xtc_threshold=0.1)
    assert close(drawn(params, logits), expected)


def test_typical_comes_before_the_filters_and_xtc_after(row, sample_rows):
    """p = .4 .3 .2 .1; typical drops the last; min_p .6 of the first drops .2; XTC then the first."""
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log().expand(200, -1)
    rows = {
        i: row(key=i, typical_p=0.85, min_p=0.6, xtc_probability=1.0, xtc_threshold=0.1) for i in range(16)
    }
    step = sample_rows(logits[:16], rows)
    assert step.token_ids.tolist() == [1] * 16


def test_greedy_rows_take_no_notice(row, sample_rows):
    logits = random_logits(1, 100, seed=8)
    greedy = row(temperature=0.0, xtc_probability=1.0, xtc_threshold=0.0, typical_p=0.01, top_n_sigma=0.1)
    assert sample_rows(logits, {0: greedy}).token_ids[0] == logits[0].argmax()


def test_settings_that_are_off_change_no_bit_of_the_plain_way(row, sample_rows):
    logits = random_logits(6, 2000, seed=9)
    plain = sample_rows(logits, {i: row(key=i, top_p=0.9) for i in range(6)}).token_ids
    for off in ({"typical_p": 1.0}, {"top_n_sigma": -1.0}, {"xtc_threshold": 0.3},
                {"xtc_probability": 1.0, "xtc_threshold": 0.6}):  # fmt: skip
        assert torch.equal(
            sample_rows(logits, {i: row(key=i, top_p=0.9, **off) for i in range(6)}).token_ids, plain
        )


def test_the_generic_way_draws_what_the_plain_one_draws(row, sample_rows):
    """A sigma that drops nothing sends rows the other way: the same filters have to leave the same draws."""
    logits = random_logits(40, 2000, seed=10)
    filters = [{"top_k": 7}, {"top_p": 0.8}, {"min_p": 0.1}, {"top_k": 50, "top_p": 0.9, "min_p": 0.01}]
    plain = {i: row(key=i, **filters[i % 4]) for i in range(16)}
    other = {i: row(key=i, top_n_sigma=100.0, **filters[i % 4]) for i in range(16)}
    expected, found = sample_rows(logits[:16], plain), sample_rows(logits[:16], other)
    # Renormalising rounds again: a draw on a border may move, and hardly any is on one.
    assert (expected.token_ids != found.token_ids).sum() <= 1


def test_broken_and_empty_rows_are_told_of(row, sample_rows):
    logits = random_logits(4, 100, seed=11)
    logits[0, 5], logits[1], logits[2, 9] = torch.nan, -torch.inf, torch.inf
    step = sample_rows(logits, {i: row(key=i, typical_p=0.5, xtc_probability=0.5) for i in range(4)})
    assert sorted(step.failed) == [0, 1, 2]
    masked = sample_rows(
        random_logits(1, 100), {0: row(typical_p=0.5, allowed_token_ids=[3], bad_words_token_ids=[[3]])}
    )
    assert "No token can be chosen" in masked.failed[0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    vocab=st.integers(1, 300),
    sigma=st.sampled_from([0.0, 0.2, 1.0, 4.0]),
    share=st.sampled_from([1e-6, 0.3, 0.95, 1.0]),
    threshold=st.sampled_from([0.0, 0.05, 0.5]),
    top_k=st.integers(0, 30),
)
def test_something_is_always_left(seed, vocab, sigma, share, threshold, top_k):
    logits = random_logits(2, vocab, seed).mul(2).round() / 2
    params = SamplingParams(
        top_n_sigma=sigma, typical_p=share, xtc_probability=1.0, xtc_threshold=threshold, top_k=top_k
    )
    step = sample(logits, {i: Row(params=params, prompt=[0], output=[], key=seed + i) for i in range(2)})
    assert step.failed == {}
