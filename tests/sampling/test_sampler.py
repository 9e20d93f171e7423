"""The sampler as a whole: no row depends on its neighbours, broken rows fail alone, seeds replay."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_rows import EOS, Row, make_table, run_step

from octavo.messages.params import SamplingParams
from octavo.messages.samplers import ThinkingBudget
from octavo.ops.sampling.filters import probabilities
from octavo.worker.sampling.sampler import Sampler

VOCAB = 2000


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def random_logits(rows, vocab=VOCAB, seed=0, spread=4.0):
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread


def test_greedy_is_argmax_and_changes_nothing(row, sample_rows):
    logits = random_logits(3)
    logits[1, [5, 900]] = 99.0
    before = logits.clone()
    sampled = sample_rows(logits, {i: row(temperature=0.0) for i in (7, 0, 3)})
    assert torch.equal(sampled.token_ids, logits.argmax(-1))
    assert sampled.logprobs == {} and sampled.failed == {}
    assert torch.equal(logits, before)


def test_no_rows():
    sampler = Sampler(num_rows=1, vocab_size=VOCAB, device=torch.device("cpu"))
    pending = sampler.sample(torch.empty(0, VOCAB), [], make_table({}))
    assert pending.token_ids.shape == (0,)
    assert pending.finish().token_ids == []


TOKENS = st.integers(0, VOCAB - 1)
PARAMS = st.fixed_dictionaries(
    {"temperature": st.sampled_from([0.0, 1e-6, 0.7, 1.0, 5.0, 100.0])},
    optional={
        "top_k": st.sampled_from([1, 5, 300, VOCAB, VOCAB + 9]),
        "top_p": st.sampled_from([1e-9, 0.5, 0.95, 0.999]),
        "min_p": st.sampled_from([0.05, 1.0]),
        "repetition_penalty": st.sampled_from([0.5, 1.2]),
        "presence_penalty": st.sampled_from([-2.0, 0.5]),
        "frequency_penalty": st.sampled_from([-0.3, 2.0]),
        "logit_bias": st.dictionaries(TOKENS, st.sampled_from([-100.0, 3.0, 100.0]), min_size=1, max_size=3),
        "allowed_token_ids": st.lists(TOKENS, min_size=1, max_size=20),
        "bad_words_token_ids": st.lists(st.lists(TOKENS, min_size=1, max_size=3), max_size=4),
        "min_tokens": st.integers(0, 3),
        "logprobs": st.sampled_from([0, 1, 5, 70, -1]),
        "logprob_token_ids": st.lists(TOKENS, min_size=1, max_size=3),
        "repeat_last_n": st.sampled_from([0, 1, 3]),
        "typical_p": st.sampled_from([0.2, 0.9]),
        "top_n_sigma": st.sampled_from([0.5, 2.0]),
        "xtc_probability": st.sampled_from([0.5, 1.0]),
        "xtc_threshold": st.sampled_from([0.0, 0.02]),
        "dry_multiplier": st.sampled_from([0.8, 3.0]),
        "dry_allowed_length": st.integers(0, 2),
        "thinking_budget": st.builds(
            ThinkingBudget, end_token_ids=st.just([3, 4]), budget=st.integers(0, 4), is_open=st.booleans()
        ),
    },
)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31), spread=st.sampled_from([0.2, 4.0]), num=st.integers(2, 6))
def test_alone_or_in_any_company_bit_for_bit(data, seed, spread, num):
    logits = random_logits(num, seed=seed, spread=spread)
    if data.draw(st.booleans(), label="ties"):
        logits = logits.round()
    numbers = data.draw(st.permutations(range(16)), label="rows")[:num]
    rows = {
        number: Row(
            params=SamplingParams(**data.draw(PARAMS)),
            prompt=data.draw(st.lists(TOKENS, min_size=1, max_size=5)),
            output=data.draw(st.lists(TOKENS, max_size=5)),
            key=data.draw(st.integers(0, 2**64 - 1)),
        )
        for number in numbers
    }
    table = make_table(rows)
    sampler = Sampler(num_rows=16, vocab_size=VOCAB, device=torch.device("cpu"))
    for number, row in rows.items():
        sampler.add_row(number, row.params, row.key, [1], row.tokens, len(row.prompt))
    together = run_step(sampler, logits, numbers, table)
    for place, number in enumerate(numbers):
        alone = run_step(sampler, logits[place : place + 1], [number], table)
        assert alone.token_ids[0] == together.token_ids[place]
        assert alone.logprobs.get(number) == together.logprobs.get(number)
        assert alone.failed.get(number) == together.failed.get(number)
    other_way = run_step(sampler, logits.flip(0), numbers[::-1], table)
    assert torch.equal(other_way.token_ids.flip(0), together.token_ids)


@pytest.mark.parametrize("vocab", [49152, 50257])
def test_threads_and_batch_size_change_no_bit_of_large_rows(vocab):
    """Past some size torch splits work between threads; sums of floats would come out different."""
    logits = random_logits(5, vocab, seed=3)
    settings_of = [{}, {"top_p": 0.9}, {"top_k": 40}, {"min_p": 0.01}, {"temperature": 0.0}]
    sampler = Sampler(num_rows=5, vocab_size=vocab, device=torch.device("cpu"))
    for i, params in enumerate(settings_of):
        sampler.add_row(i, SamplingParams(logprobs=3, **params), 99 + i, [0], [1], 1)
    table = make_table({i: Row(params=SamplingParams(), prompt=[1], output=[]) for i in range(5)})
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(run_step(sampler, logits, range(5), table))
            ones = [run_step(sampler, logits[i : i + 1], [i], table) for i in range(5)]
        assert [int(one.token_ids) for one in ones] == results[-1].token_ids.tolist()
        assert {k: v for one in ones for k, v in one.logprobs.items()} == results[-1].logprobs
    assert all(torch.equal(result.token_ids, results[0].token_ids) for result in results)
    assert all(result.logprobs == results[0].logprobs for result in results)


def test_warming_up_leaves_nothing_behind(row, sample_rows):
    logits = random_logits(2, seed=3)
    rows = {0: row(temperature=0.0), 1: row(key=4)}
    sampler = Sampler(num_rows=16, vocab_size=VOCAB, device=torch.device("cpu"))
    sampler.warm_up(torch.bfloat16, make_table({}))
    assert torch.equal(sample_rows(logits, rows, sampler).token_ids, sample_rows(logits, rows).token_ids)


def test_seed_and_position_decide_the_token(row, sample_rows):
    logits = random_logits(1, spread=0.5)
    draws = {
        (key, length): int(sample_rows(logits, {0: row(prompt=[1] * length, key=key)}).token_ids)
        for key in range(8)
        for length in range(1, 8)
    }
    again = {
        (key, length): int(
            sample_rows(logits, {9: row(prompt=[1], output=[2] * (length - 1), key=key)}).token_ids
        )
        for key, length in draws
    }
    assert draws == again
    assert len(set(draws.values())) > 50


def test_draws_follow_the_distribution():
    """4,000 rows of their own keys at one position: chi-square over the likely tokens and the rest."""
    count, vocab = 4000, 64
    logits = random_logits(1, vocab, seed=11, spread=0.6)
    sampler = Sampler(num_rows=count, vocab_size=vocab, device=torch.device("cpu"))
    for i in range(count):
        sampler.add_row(i, SamplingParams(temperature=0.8), i * 7919 + 5, [], [1], 1)
    table = make_table(
        {i: Row(params=SamplingParams(), prompt=[1], output=[]) for i in range(count)}, count, 1
    )
    tokens = run_step(sampler, logits.expand(count, -1), range(count), table).token_ids
    temperature = torch.tensor([0.8], dtype=torch.float64)
    expected = probabilities(logits, logits.amax(-1), temperature)[0, :vocab].double() * count
    observed = torch.bincount(tokens, minlength=vocab).double()
    assert expected.min() > 5
    chi_square = ((observed - expected) ** 2 / expected).sum().item()
    assert 31 < chi_square < 106  # 63 degrees of freedom: p = 0.0005 on either side


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1e-6},
        {"temperature": 100.0, "top_k": 1},
        {"temperature": 100.0, "top_p": 1e-9},
        {"temperature": 100.0, "min_p": 1.0},
        {"temperature": 1.0, "logit_bias": {1234: 100.0}},
    ],
    ids=str,
)
def test_settings_that_leave_one_token(row, sample_rows, params):
    logits = random_logits(8, seed=21)
    sampled = sample_rows(logits, {i: row(key=i, **params) for i in range(8)})
    expected = logits.argmax(-1)
    if "logit_bias" in params:
        expected.fill_(1234)
    assert torch.equal(sampled.token_ids, expected)


def test_settings_that_are_off_filter_nothing(row, sample_rows):
    logits = random_logits(6, seed=22, spread=0.3)
    plain = sample_rows(logits, {i: row(key=i) for i in range(6)}).token_ids
    for params in ({"top_k": 0}, {"top_k": -1}, {"top_k": VOCAB}, {"top_k": VOCAB * 5}, {"top_p": 1.0}):
        assert torch.equal(sample_rows(logits, {i: row(key=i, **params) for i in range(6)}).token_ids, plain)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("with_penalty", [False, True])
def test_broken_logits_fail_their_row_alone(row, sample_rows, temperature, with_penalty):
    logits = random_logits(5, seed=30)
    broken = logits.clone()
    broken[0, 77] = float("nan")
    broken[2] = float("-inf")
    broken[4, 0] = float("inf")
    extra = {"presence_penalty": 0.5} if with_penalty else {}
    rows = {i + 3: row(key=i, output=[4], temperature=temperature, logprobs=2, **extra) for i in range(5)}
    healthy, sampled = sample_rows(logits, rows), sample_rows(broken, rows)
    assert sorted(sampled.failed) == [3, 5, 7]
    assert all("not finite" in message for message in sampled.failed.values())
    assert sampled.token_ids[[0, 2, 4]].tolist() == [0, 0, 0]
    assert torch.equal(sampled.token_ids[[1, 3]], healthy.token_ids[[1, 3]])
    assert sampled.logprobs == {i: healthy.logprobs[i] for i in (4, 6)}


@pytest.mark.parametrize("company", [{}, {"allowed_token_ids": [3]}, {"presence_penalty": 1.0}])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_mask_does_not_hide_broken_logits_whoever_is_beside(row, sample_rows, company, broken):
    """What is wrong with a row is its own matter: neither the token nor the message depends on others."""
    logits = torch.zeros(3, 8)
    logits[0, 5] = broken
    logits[1] = broken
    if broken == -torch.inf:
        logits[0] = broken
    rows = {0: row(temperature=0.0, allowed_token_ids=[2, 3]), 1: row(), 2: row(**company)}
    failed = sample_rows(logits, rows).failed
    assert failed.keys() == {0, 1}
    assert all("The model's logits are not finite" in message for message in failed.values())


def test_rows_with_every_token_masked_fail_alone(row, sample_rows):
    logits = random_logits(3, seed=31)
    rows = {
        0: row(temperature=1.0, allowed_token_ids=[4], bad_words_token_ids=[[4]]),
        1: row(temperature=1.0, key=5),
        2: row(temperature=0.0, allowed_token_ids=[1], min_tokens=1),
    }
    sampled = sample_rows(logits, rows)
    assert sorted(sampled.failed) == [0, 2]
    assert all("No token can be chosen" in message for message in sampled.failed.values())
    assert sampled.token_ids[1] == sample_rows(logits[1:2], {1: rows[1]}).token_ids[0]


def test_a_reused_row_remembers_nothing(row, sample_rows, table_of):
    logits = random_logits(2, seed=40)
    logits[0, EOS] = logits[0].max() + 1
    company = row(key=1)
    sampler = Sampler(num_rows=16, vocab_size=VOCAB, device=torch.device("cpu"))
    heavy = row(
        key=3, output=[9], temperature=2.0, top_k=3, top_p=0.5, min_p=0.2, presence_penalty=2.0, logprobs=4,
        repetition_penalty=1.5, frequency_penalty=1.0, logit_bias={8: 50.0}, allowed_token_ids=[8, 9],
        bad_words_token_ids=[[3], [9, 8]], min_tokens=9, logits_processors=[lambda ids, x: x * 0],
    )  # fmt: skip
    for light in (row(temperature=0.0), row(key=12, output=[9])):
        expected = sample_rows(logits, {5: light, 6: company})
        for forget in (True, False):
            sample_rows(logits[:1], {5: heavy}, sampler)
            if forget:
                sampler.remove_row(5)
                sampler.remove_row(5)
            found = sample_rows(logits, {5: light, 6: company}, sampler)
            assert torch.equal(found.token_ids, expected.token_ids)
            assert found.logprobs == found.failed == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_taken_as_float32(row, sample_rows, dtype):
    logits = random_logits(4, seed=50).to(dtype)
    rows = {
        0: row(temperature=0.0, logprobs=3),
        1: row(key=1, logprobs=3),
        2: row(key=2, top_p=0.9),
        3: row(temperature=0.0, output=[6], presence_penalty=1.0),
    }
    half, full = sample_rows(logits, rows), sample_rows(logits.float(), rows)
    assert torch.equal(half.token_ids, full.token_ids)
    assert half.logprobs == full.logprobs


def test_padded_vocabulary_slices_are_fine(row, sample_rows):
    """A view of wider logits, whose rows are not contiguous."""
    wide = random_logits(3, VOCAB + 48, seed=51)
    rows = {0: row(temperature=0.0), 1: row(key=1, top_p=0.9, logprobs=2), 2: row(key=1)}
    assert torch.equal(
        sample_rows(wide[:, :VOCAB], rows).token_ids,
        sample_rows(wide[:, :VOCAB].contiguous(), rows).token_ids,
    )
