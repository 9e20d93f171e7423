"""DRY against llama.cpp's algorithm written out, breakers of real vocabularies included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_references import dry_losses
from sampling_rows import Row, make_table, run_step

from octavo.messages.params import SamplingParams
from octavo.messages.samplers import DryBreakers
from octavo.worker.sampling.dry import MOST_COUNTED, Dry, repeated
from octavo.worker.sampling.history import History
from octavo.worker.sampling.sampler import Sampler

VOCAB = 40
CPU = torch.device("cpu")


def dry_params(breakers=(), **values):
    """SamplingParams with DRY on; breakers as lists of a head and its tail."""
    tails = [[]]
    bits = {}
    for head, *tail in breakers:
        if tail not in tails:
            tails.append(tail)
        bits[head] = bits.get(head, 0) | 1 << tails.index(tail)
    made = DryBreakers(list(bits), list(bits.values()), tails)
    return SamplingParams(temperature=0.0, dry_breakers=made, **{"dry_multiplier": 0.8, **values})


def losses(rows, width=64):
    """What each row's tokens lose, in a batch."""
    dry = Dry(CPU)
    for number, row in rows.items():
        dry.add_row(number, row.params)
    table = make_table(rows, num_rows=64, width=width)
    logits = torch.zeros(len(rows), VOCAB)
    dry.apply(logits, History(table, list(rows), CPU))
    return -logits


def reference(row, breakers=()):
    params = row.params
    found = dry_losses(
        row.tokens,
        multiplier=params.dry_multiplier,
        base=params.dry_base,
        allowed=params.dry_allowed_length,
        last_n=params.dry_penalty_last_n,
        breakers=breakers,
    )
    return torch.tensor([found.get(token, 0.0) for token in range(VOCAB)])


def check(row, breakers=()):
    torch.testing.assert_close(losses({3: row})[0], reference(row, breakers), rtol=1e-6, atol=0)


def test_what_continues_a_repetition_loses_by_its_length():
    row = Row(params=dry_params(), prompt=[1, 2, 3, 4, 9], output=[7, 1, 2, 3])
    found = losses({0: row})[0]
    assert found.nonzero().squeeze(1).tolist() == [4]
    assert found[4] == pytest.approx(0.8 * 1.75)


def test_the_longest_repetition_counts_and_others_do_not_add_up():
    row = Row(params=dry_params(), prompt=[5, 2, 3, 8, 1, 2, 3, 8, 0], output=[1, 2, 3])
    assert losses({0: row})[0][8] == pytest.approx(0.8 * 1.75)
    check(row)


def test_breakers_end_repetitions_and_are_never_punished():
    tokens = [1, 6, 2, 3, 4, 1, 6, 2, 3]
    row = Row(params=dry_params(), prompt=tokens, output=[])
    assert losses({0: row})[0][4] == pytest.approx(0.8 * 1.75**2)
    broken = Row(params=dry_params([[6]]), prompt=tokens, output=[])
    assert losses({0: broken})[0][4] == pytest.approx(0.8)
    breaker_next = Row(params=dry_params([[4]]), prompt=tokens, output=[])
    assert not losses({0: breaker_next})[0].any()


def test_breakers_of_several_tokens():
    """Head 6 with tail 2: the count ends behind the tail."""
    tokens = [1, 6, 2, 3, 5, 4, 1, 6, 2, 3, 5]
    check(Row(params=dry_params([[6, 2]]), prompt=tokens, output=[]), [[6, 2]])
    check(Row(params=dry_params([[6, 9]]), prompt=tokens, output=[]), [[6, 9]])
    check(Row(params=dry_params([[1, 6, 2], [6]]), prompt=tokens, output=[]), [[1, 6, 2], [6]])


def test_long_repetitions_of_long_texts():
    """Longer than one stretch; over the limit of counting, where llama.cpp's own limit holds as well."""
    text = torch.randint(VOCAB, (400,), generator=torch.Generator().manual_seed(1)).tolist()
    for base in (1.75, 1.1, 1.0):
        for length in (31, 32, 33, 100, 180):
            row = Row(params=dry_params(dry_base=base), prompt=text, output=text[10 : 10 + length])
            torch.testing.assert_close(losses({0: row}, 1024)[0], reference(row), rtol=1e-5, atol=0)


def test_repetitions_are_counted_to_a_limit():
    recent = torch.zeros(1, 2 * MOST_COUNTED, dtype=torch.int64)
    assert repeated(recent)[0, 1] == MOST_COUNTED
    assert repeated(recent)[0, -1] == 1


TOKENS = st.integers(0, 5)


@st.composite
def dry_rows(draw):
    breakers = draw(st.lists(st.lists(TOKENS, min_size=1, max_size=3), max_size=3))
    params = dry_params(
        breakers,
        dry_multiplier=draw(st.sampled_from([0.1, 0.8, 5.0])),
        dry_base=draw(st.sampled_from([1.0, 1.1, 1.75, 4.0])),
        dry_allowed_length=draw(st.integers(0, 4)),
        dry_penalty_last_n=draw(st.sampled_from([-1, 1, 3, 10, 64])),
    )
    prompt = draw(st.lists(TOKENS, min_size=1, max_size=30))
    return Row(params=params, prompt=prompt, output=draw(st.lists(TOKENS, max_size=30))), breakers


@settings(max_examples=150, deadline=None)
@given(cases=st.lists(dry_rows(), min_size=1, max_size=5))
def test_any_text_equals_the_reference_in_any_company(cases):
    rows = {number * 3: row for number, (row, _) in enumerate(cases)}
    together = losses(rows)
    for place, (row, breakers) in enumerate(cases):
        torch.testing.assert_close(together[place], reference(row, breakers), rtol=1e-6, atol=0)
        assert torch.equal(losses({place * 3: row})[0], together[place])


def test_it_works_on_greedy_rows_and_beside_others():
    logits = torch.zeros(2, VOCAB)
    logits[:, 4], logits[:, 5] = 3.0, 2.5
    loops = Row(params=dry_params(), prompt=[1, 2, 3, 4], output=[1, 2, 3])
    plain = Row(params=SamplingParams(temperature=0.0), prompt=[1, 2, 3, 4], output=[1, 2, 3])
    sampler = Sampler(num_rows=16, vocab_size=VOCAB, device=CPU)
    for number, row in {0: loops, 1: plain}.items():
        sampler.add_row(number, row.params, 0, [], row.tokens, len(row.prompt))
    table = make_table({0: loops, 1: plain})
    assert run_step(sampler, logits, [0, 1], table).token_ids.tolist() == [5, 4]
    sampler.remove_row(0)
    sampler.add_row(0, plain.params, 0, [], plain.tokens, 4)
    assert run_step(sampler, logits[:1], [0], table).token_ids.tolist() == [4]


def test_off_means_off():
    for off in ({"dry_multiplier": 0.0}, {"dry_penalty_last_n": 0}):
        dry = Dry(CPU)
        dry.add_row(0, dry_params(**off))
        assert not dry.used_by([0])
