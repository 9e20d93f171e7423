"""Log-probabilities and ranks against log_softmax written out in float64."""

import pytest
import torch

from octavo.worker.sampling import logprobs as logprobs_module
from octavo.worker.sampling.logprobs import prompt_logprobs, token_logprobs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab", [7, 100, 5000])
def test_values_order_and_rank(dtype, vocab):
    logits = (torch.randn(6, vocab, generator=torch.Generator().manual_seed(4)) * 3).to(dtype)
    tokens = torch.arange(6)
    exact = torch.log_softmax(logits.double(), -1)
    order = torch.sort(logits.float(), dim=-1, descending=True, stable=True).indices
    tops = [0, 1, 5, 20, -1, 3]
    for i, (found, top) in enumerate(zip(token_logprobs(logits, tokens, tops).finish(), tops, strict=True)):
        count = vocab if top == -1 else min(top, vocab)
        assert found.token_ids == [i, *order[i, :count].tolist()]
        torch.testing.assert_close(
            torch.tensor(found.logprobs, dtype=torch.float64), exact[i, found.token_ids], rtol=1e-5, atol=1e-5
        )
        assert found.rank == 1 + int((logits[i] > logits[i, i]).sum())


def test_prompt_positions_in_pieces_equal_one_by_one(monkeypatch):
    logits = torch.randn(37, 300, generator=torch.Generator().manual_seed(5))
    following = torch.randint(300, (37,), generator=torch.Generator().manual_seed(6))
    whole = prompt_logprobs(logits, following, 4).finish()
    monkeypatch.setattr(logprobs_module, "_ENTRIES_AT_ONCE", 300 * 5)
    assert prompt_logprobs(logits, following, 4).finish() == whole
    assert [
        prompt_logprobs(logits[i : i + 1], following[i : i + 1], 4).finish()[0] for i in range(37)
    ] == whole
    assert prompt_logprobs(logits[:0], following[:0], 4).finish() == []


def test_the_count_asked_by_others_changes_nothing():
    logits = torch.randn(3, 500, generator=torch.Generator().manual_seed(7)).round()  # many ties
    tokens = torch.tensor([1, 2, 3])
    mixed = token_logprobs(logits, tokens, [2, 300, -1]).finish()
    for i, top in enumerate([2, 300, -1]):
        assert token_logprobs(logits[i : i + 1], tokens[i : i + 1], [top]).finish() == [mixed[i]]


def test_masked_logits_have_no_probability():
    logits = torch.tensor([[1.0, float("-inf"), 2.0]])
    found = token_logprobs(logits, torch.tensor([1]), [-1]).finish()[0]
    assert found.token_ids == [1, 2, 0, 1]
    assert found.logprobs[0] == float("-inf")
    assert found.rank == 3


def test_sampled_tokens_report_the_models_own_distribution(row, sample_rows):
    """Penalties, masks and temperature choose the token; they do not show in the numbers."""
    logits = torch.randn(3, 90, generator=torch.Generator().manual_seed(8))
    best = int(logits[1].argmax())
    rows = {
        6: row(temperature=0.0, logprobs=0),
        2: row(temperature=0.0, logprobs=3, bad_words_token_ids=[[best]], logit_bias={4: 1.5}),
        1: row(temperature=0.3, prompt=[5], repetition_penalty=3.0),
    }
    sampled = sample_rows(logits, rows)
    assert set(sampled.logprobs) == {6, 2}
    assert sampled.logprobs[6].rank == 1
    assert len(sampled.logprobs[6].token_ids) == 1
    second = sampled.logprobs[2]
    assert second.token_ids[0] == sampled.token_ids[1] != best
    assert second.token_ids[1] == best
    exact = torch.log_softmax(logits[1], -1)
    torch.testing.assert_close(torch.tensor(second.logprobs), exact[second.token_ids])


def test_tokens_asked_for_come_in_their_order_instead_of_the_best(row, sample_rows):
    logits = torch.randn(4, 500, generator=torch.Generator().manual_seed(3))
    rows = {
        5: row(temperature=0.0, logprob_token_ids=[7, 499, 0], logprobs=2),
        1: row(temperature=0.0, logprobs=2),
        2: row(temperature=0.0),
        9: row(temperature=0.0, logprob_token_ids=[3]),
    }
    sampled = sample_rows(logits, rows)
    everything = torch.log_softmax(logits, -1)
    assert sorted(sampled.logprobs) == [1, 5, 9]
    for place, number, others in ((0, 5, [7, 499, 0]), (3, 9, [3])):
        found = sampled.logprobs[number]
        assert found.token_ids == [int(sampled.token_ids[place]), *others] and found.rank == 1
        torch.testing.assert_close(torch.tensor(found.logprobs), everything[place][found.token_ids])
    assert sampled.logprobs[1].token_ids[1:] == logits[1].topk(2).indices.tolist()
