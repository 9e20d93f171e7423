"""logit_bias, allowed_token_ids, bad_words and min_tokens, each alone and all in one batch."""

import pytest
import torch
from transformers.generation.logits_process import NoBadWordsLogitsProcessor

from octavo.worker.sampling.bad_words import ComparedBadWords, FoundBadWords
from octavo.worker.sampling.history import History
from octavo.worker.sampling.masks import AllowedTokens, LogitBias, MinTokens

VOCAB = 40
EOS = 1


def applied(mask_type, logits, rows, table):
    """Logits after one kind of mask over a batch of rows."""
    mask = mask_type(torch.device("cpu"))
    for number, r in rows.items():
        extra = ([EOS],) if mask_type is MinTokens else ()
        mask.add_row(number, r.params, *extra)
    result = logits.clone()
    history = (History(table, list(rows), torch.device("cpu")),)
    mask.apply(result, list(rows), *(() if mask_type in (LogitBias, AllowedTokens) else history))
    return result


def masked_tokens(logits):
    return [line.isneginf().nonzero().squeeze(1).tolist() for line in logits]


@pytest.fixture
def logits():
    return torch.randn(4, VOCAB, generator=torch.Generator().manual_seed(0))


def test_logit_bias_adds(row, table_of, logits):
    rows = {3: row(logit_bias={5: 100.0, 6: -100.0}), 1: row(), 0: row(logit_bias={5: 0.5}), 2: row()}
    result = applied(LogitBias, logits, rows, table_of(rows))
    expected = logits.clone()
    expected[0, 5] += 100.0
    expected[0, 6] -= 100.0
    expected[2, 5] += 0.5
    assert torch.equal(result, expected)


def test_allowed_tokens_mask_all_others(row, table_of, logits):
    rows = {0: row(allowed_token_ids=[3, 9, 3]), 1: row(), 2: row(allowed_token_ids=[0]), 3: row()}
    result = applied(AllowedTokens, logits, rows, table_of(rows))
    assert masked_tokens(result) == [
        [t for t in range(VOCAB) if t not in (3, 9)],
        [],
        list(range(1, VOCAB)),
        [],
    ]
    assert torch.equal(result[result.isfinite()], logits[result.isfinite()])


def test_min_tokens_mask_ends_until_reached(row, table_of, logits):
    rows = {
        0: row(prompt=[5] * 9, output=[4, 4], min_tokens=3, stop_token_ids=[7, EOS]),
        1: row(prompt=[5] * 9, output=[4, 4, 4], min_tokens=3, stop_token_ids=[7]),
        2: row(output=[], min_tokens=1),
        3: row(output=[], min_tokens=0, stop_token_ids=[7]),
    }
    assert masked_tokens(applied(MinTokens, logits, rows, table_of(rows))) == [[EOS, 7], [], [EOS], []]


BAD = [[8], [2, 3], [2, 4, 5], [2, 4, 6], [4, 9], [8]]


@pytest.fixture(params=[ComparedBadWords, lambda device: FoundBadWords()], ids=["compared", "found"])
def bad_words(request):
    """As GPUs have them, and as CPUs."""
    return request.param


@pytest.mark.parametrize(
    ("output", "banned"),
    [
        ([], [8]),
        ([2], [3, 8]),
        ([2, 4], [5, 6, 8, 9]),
        ([4], [8, 9]),
        ([3, 2], [3, 8]),
        ([2, 2, 4, 2], [3, 8]),
    ],
    ids=str,
)
def test_bad_words_by_output(bad_words, row, table_of, logits, output, banned):
    rows = {5: row(prompt=[20], output=output, bad_words_token_ids=BAD)}
    result = applied(bad_words, logits[:1], rows, table_of(rows))
    assert masked_tokens(result) == [banned]
    expected = NoBadWordsLogitsProcessor(BAD, eos_token_id=EOS)(
        torch.tensor([[20, *output]]), logits[:1].clone()
    )
    assert masked_tokens(result) == masked_tokens(expected)


def test_bad_words_do_not_look_into_the_prompt(bad_words, row, table_of, logits):
    rows = {
        0: row(prompt=[2, 4], output=[], bad_words_token_ids=BAD),
        1: row(prompt=[2], output=[4], bad_words_token_ids=BAD),
    }
    result = applied(bad_words, logits[:2], rows, table_of(rows))
    assert masked_tokens(result) == [[8], [8, 9]]


def test_bad_words_of_several_rows_do_not_mix(bad_words, row, table_of, logits):
    rows = {
        2: row(output=[2], bad_words_token_ids=[[2, 3]]),
        7: row(output=[2]),
        0: row(output=[6, 2], bad_words_token_ids=[[9], [6, 2, 11], [7, 2, 12]]),
        4: row(output=[], bad_words_token_ids=[[1, 1], []]),
    }
    result = applied(bad_words, logits, rows, table_of(rows))
    assert masked_tokens(result) == [[3], [], [9, 11], []]


def test_samples_with_the_same_list(bad_words, row, table_of, logits):
    """It is made ready once, stays when one of them goes, and goes with the last."""
    params = row(bad_words_token_ids=BAD).params
    table = table_of({number: row(output=[2, 4][:number]) for number in range(3)})
    bad = bad_words(torch.device("cpu"))
    for number in range(3):
        bad.add_row(number, params)
    for gone, rows, expected in (
        (None, [0, 1, 2], [[8], [3, 8], [5, 6, 8, 9]]),
        (0, [1, 2], [[3, 8], [5, 6, 8, 9]]),
        (1, [2], [[5, 6, 8, 9]]),
    ):
        if gone is not None:
            bad.remove_row(gone)
        result = logits[: len(rows)].clone()
        bad.apply(result, rows, History(table, rows, torch.device("cpu")))
        assert masked_tokens(result) == expected
    bad.remove_row(2)
    assert not bad.used_by([0, 1, 2])


def test_forgotten_rows_leave_nothing(bad_words, row, table_of, logits):
    rows = {0: row(output=[2], bad_words_token_ids=BAD)}
    bad = bad_words(torch.device("cpu"))
    bad.add_row(0, rows[0].params)
    bad.remove_row(0)
    result = logits[:1].clone()
    bad.apply(result, [0], History(table_of(rows), [0], torch.device("cpu")))
    assert torch.equal(result, logits[:1])


def test_all_kinds_at_once(row, sample_rows):
    logits = torch.zeros(5, VOCAB)
    logits[:, EOS], logits[:, 8], logits[:, 5] = 9.0, 8.0, 7.0
    rows = {
        0: row(temperature=0.0),
        1: row(temperature=0.0, min_tokens=2),
        2: row(temperature=0.0, min_tokens=2, bad_words_token_ids=[[8]]),
        3: row(temperature=0.0, allowed_token_ids=[30, 31], logit_bias={31: 1.0}),
        4: row(temperature=0.0, logit_bias={20: 100.0}, min_tokens=2),
    }
    assert sample_rows(logits, rows).token_ids.tolist() == [EOS, 8, 5, 31, 20]


def test_bias_cannot_lift_a_mask(row, sample_rows):
    rows = {
        0: row(temperature=0.0, logit_bias={7: 100.0}, bad_words_token_ids=[[7]], allowed_token_ids=[7, 9])
    }
    assert sample_rows(torch.zeros(1, VOCAB), rows).token_ids.tolist() == [9]
