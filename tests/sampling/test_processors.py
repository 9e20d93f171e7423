"""The caller's own functions: what they see, what they change, and what happens when they misbehave."""

import pytest
import torch

VOCAB = 30


def only(token):
    def processor(output_token_ids, logits):
        result = torch.full_like(logits, float("-inf"))
        result[token] = 0.0
        return result

    return processor


def test_processors_see_output_and_logits_and_run_in_order(row, sample_rows):
    seen = []

    def spy(output_token_ids, logits):
        seen.append((output_token_ids, logits.shape, logits.dtype))
        logits[7] += 1.0  # writing into the argument is allowed
        return logits

    def double(output_token_ids, logits):
        return logits * 2

    logits = torch.zeros(2, VOCAB, dtype=torch.bfloat16)
    logits[:, 3] = 0.9
    before = logits.clone()
    rows = {
        5: row(prompt=[1, 2], output=[8, 9], temperature=0.0, logits_processors=[spy, double]),
        0: row(temperature=0.0),
    }
    sampled = sample_rows(logits, rows)
    assert sampled.token_ids.tolist() == [7, 3]
    assert seen == [([8, 9], (VOCAB,), torch.float32)]
    assert torch.equal(logits, before)


def test_masks_have_the_last_word(row, sample_rows):
    rows = {0: row(temperature=0.0, logits_processors=[only(4)], bad_words_token_ids=[[4]])}
    sampled = sample_rows(torch.zeros(1, VOCAB), rows)
    assert "No token can be chosen" in sampled.failed[0]


def raises(output_token_ids, logits):
    raise KeyError("no such thing")


def nan(output_token_ids, logits):
    return logits * float("nan")


@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (raises, "logits_processors[1] raised KeyError: 'no such thing'"),
        (
            lambda ids, x: x[:-1],
            "returned torch.float32 [29]; it must return a floating-point tensor of shape [30]",
        ),
        (lambda ids, x: None, "returned NoneType"),
        (lambda ids, x: x.argsort(), "returned torch.int64 [30]"),
        (nan, "NaN or infinite"),
        (lambda ids, x: x - float("inf"), "masked every one"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_bad_processor_fails_its_own_row(row, sample_rows, processor, message, temperature):
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(0))
    ok = {1: row(temperature=temperature, key=1), 3: row(temperature=temperature, key=3)}
    rows = {
        1: ok[1],
        2: row(temperature=temperature, logprobs=1, logits_processors=[lambda ids, x: x, processor]),
        3: ok[3],
    }
    sampled = sample_rows(logits, rows)
    assert set(sampled.failed) == {2}
    assert message in sampled.failed[2]
    assert 2 not in sampled.logprobs
    assert sampled.token_ids[[0, 2]].tolist() == sample_rows(logits[[0, 2]], ok).token_ids.tolist()
