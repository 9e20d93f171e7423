"""Penalties against transformers' repetition penalty and against OpenAI's formula written out."""

from collections import Counter

import torch
from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

from octavo.messages.params import SamplingParams
from octavo.worker.sampling.history import History
from octavo.worker.sampling.penalties import apply_penalties
from octavo.worker.sampling.rows import SamplingRows

VOCAB = 50


def penalised(logits, rows, table):
    """The logits after penalties, in a batch of these rows."""
    settings = SamplingRows(num_rows=64, vocab_size=logits.shape[1], device=torch.device("cpu"))
    for number, row in rows.items():
        settings.add(number, row.params, row.key)
    result = logits.clone()
    history = History(table, list(rows), torch.device("cpu"))
    places = [place for place, number in enumerate(rows) if number in settings.penalised]
    apply_penalties(result, places, history, settings)
    return result


def test_repetition_equals_transformers_over_prompt_and_output(row, table_of):
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0))
    rows = {
        4: row(prompt=[1, 2, 2], output=[3], repetition_penalty=1.3),
        0: row(prompt=[9], output=[], repetition_penalty=0.7),
        9: row(prompt=[5, 6], output=[5, 5, 7], repetition_penalty=2.0),
    }
    result = penalised(logits, rows, table_of(rows))
    for place, r in enumerate(rows.values()):
        processor = RepetitionPenaltyLogitsProcessor(r.params.repetition_penalty)
        expected = processor(torch.tensor([r.tokens]), logits[place : place + 1].clone())[0]
        torch.testing.assert_close(result[place], expected, rtol=1e-6, atol=0)


def test_presence_and_frequency_count_the_output_only(row, table_of):
    logits = torch.randn(2, VOCAB, generator=torch.Generator().manual_seed(1))
    rows = {
        1: row(prompt=[7, 7, 8], output=[8, 9, 9, 9], presence_penalty=0.5, frequency_penalty=0.25),
        2: row(prompt=[0, 1], output=[2, 1], presence_penalty=-1.0, frequency_penalty=-0.5),
    }
    result = penalised(logits, rows, table_of(rows))
    for place, r in enumerate(rows.values()):
        expected = logits[place].clone()
        for token, count in Counter(r.output).items():
            expected[token] -= r.params.frequency_penalty * count + r.params.presence_penalty
        torch.testing.assert_close(result[place], expected)


def test_repetition_comes_before_the_others(row, table_of):
    logits = torch.tensor([[1.0, -1.0, 0.5, 3.0]])
    rows = {0: row(prompt=[3], output=[0, 1], repetition_penalty=2.0, presence_penalty=0.75)}
    result = penalised(logits, rows, table_of(rows))
    torch.testing.assert_close(result, torch.tensor([[1.0 / 2 - 0.75, -2.0 - 0.75, 0.5, 1.5]]))


def test_rows_in_several_pieces_and_of_many_lengths(row, table_of):
    """More rows than are handled at once; what lies behind a row's end is never looked at."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(40, VOCAB, generator=generator)
    rows = {
        i: row(
            prompt=[i % VOCAB],
            output=torch.randint(VOCAB, (i,), generator=generator).tolist(),
            frequency_penalty=0.1 * (i % 5),
            repetition_penalty=1.0 + i / 10,
        )
        for i in range(40)
    }
    table = table_of(rows, num_rows=64)
    together = penalised(logits, rows, table)
    for place, (number, r) in enumerate(rows.items()):
        alone = penalised(logits[place : place + 1], {number: r}, table)
        assert torch.equal(alone[0], together[place])
        processor = RepetitionPenaltyLogitsProcessor(r.params.repetition_penalty)
        expected = processor(torch.tensor([r.tokens]), logits[place : place + 1].clone())[0]
        for token, count in Counter(r.output).items():
            expected[token] -= r.params.frequency_penalty * count
        torch.testing.assert_close(together[place], expected)


def test_rows_without_penalties_are_not_listed():
    settings = SamplingRows(num_rows=2, vocab_size=VOCAB, device=torch.device("cpu"))
    settings.add(0, SamplingParams(temperature=0.5), 1)
    settings.add(1, SamplingParams(frequency_penalty=0.1), 1)
    assert settings.penalised == {1}
    settings.add(1, SamplingParams(), 1)
    assert settings.penalised == set()


def test_penalised_tokens_decide_greedy_choice(row, sample_rows):
    logits = torch.zeros(2, VOCAB)
    logits[:, 10], logits[:, 11] = 2.0, 1.9
    rows = {
        0: row(prompt=[10], temperature=0.0, repetition_penalty=1.5),
        1: row(prompt=[10], temperature=0.0, presence_penalty=1.0),
    }
    assert sample_rows(logits, rows).token_ids.tolist() == [11, 10]


def test_a_window_bounds_repetition_and_nothing_else(row, table_of):
    logits = torch.randn(4, VOCAB, generator=torch.Generator().manual_seed(5))
    rows = {
        number: row(
            prompt=[1, 2, 3],
            output=[4, 2, 5],
            repetition_penalty=1.5,
            presence_penalty=0.5,
            repeat_last_n=last,
        )
        for number, last in enumerate((-1, 0, 2, 100))
    }
    result = penalised(logits, rows, table_of(rows))
    for place, tokens in enumerate(([1, 2, 3, 4, 5], [], [2, 5], [1, 2, 3, 4, 5])):
        expected = logits[place].clone()
        for token in tokens:
            expected[token] = expected[token] / 1.5 if expected[token] > 0 else expected[token] * 1.5
        for token in (4, 2, 5):
            expected[token] -= 0.5
        torch.testing.assert_close(result[place], expected)
