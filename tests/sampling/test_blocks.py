"""Two-stage search for the largest entries against torch over whole rows."""

import pytest
import torch

from octavo.ops.sampling.blocks import BLOCK, best_token, best_tokens

SIZES = [1, 5, BLOCK, BLOCK + 1, 1000, 50257 // 4]


@pytest.mark.parametrize("vocab", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_best_token_is_argmax_with_ties_to_the_lowest(vocab, dtype):
    x = torch.randn(9, vocab, generator=torch.Generator().manual_seed(vocab)).mul(2).round().to(dtype)
    value, index = best_token(x)
    assert torch.equal(index, x.argmax(-1))
    assert torch.equal(value, x.amax(-1).float())


def test_best_token_shows_what_is_not_finite():
    x = torch.zeros(4, 200)
    x[1, 150] = float("nan")
    x[2, 3] = float("inf")
    x[3] = float("-inf")
    value, index = best_token(x)
    assert value.isfinite().tolist() == [True, False, False, False]
    assert index[3] == 0


@pytest.mark.parametrize("vocab", SIZES)
@pytest.mark.parametrize("k", [1, 4, 20, 200, 5000])
def test_best_tokens_with_many_ties(vocab, k):
    x = torch.randn(5, vocab, generator=torch.Generator().manual_seed(k)).mul(3).round() * 0.5
    x[2] = float("-inf")
    x[3] = 0.0
    x[3, ::2] = -0.0
    values, ids = best_tokens(x, k)
    expected = torch.sort(x, dim=-1, descending=True, stable=True)
    assert torch.equal(ids, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_best_tokens_of_a_broken_row_are_tokens(sign):
    """A processor's own NaN is negative: it comes behind everything, even behind the padding of a block."""
    x = torch.full((1, BLOCK * 9 + 1), -float("inf"))
    x[0, -1] = torch.copysign(torch.tensor(float("nan")), torch.tensor(sign))
    for k in (1, 3):
        assert (best_tokens(x, k)[1] < x.shape[1]).all()


def test_best_tokens_do_not_depend_on_how_many():
    x = torch.randn(3, 4096, generator=torch.Generator().manual_seed(0)).round()
    many = best_tokens(x, 4000)[1]
    for k in (1, 7, 33, 500):
        assert torch.equal(best_tokens(x, k)[1], many[:, :k])
