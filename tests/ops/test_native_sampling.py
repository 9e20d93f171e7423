"""Tokens chosen in native code are those that the plain form chooses, whatever else is in the batch."""

from __future__ import annotations

import random

import pytest
import torch

from octavo.base.native import native_library
from octavo.ops.cpu.host import choose_tokens
from octavo.ops.sampling.choose import choose_plain
from octavo.ops.sampling.choose import choose_tokens as op
from octavo.ops.sampling.settings import FILTERED, GREEDY, NO_TOP_K, UNFILTERED, Draws, settings_line

pytestmark = pytest.mark.skipif(native_library() is None, reason="no native kernels were compiled")


@pytest.mark.parametrize("number", range(4))
def test_examples(number: int) -> None:
    logits_SV, draws = list(op.examples())[number]
    before_SV = logits_SV.clone()
    found_2S = choose_tokens(logits_SV, draws)
    assert found_2S.dtype == torch.int32
    assert torch.equal(found_2S, choose_plain(logits_SV, draws))
    assert torch.equal(logits_SV.nan_to_num(7.0), before_SV.nan_to_num(7.0))


def any_draws(count: int, seed: int) -> Draws:
    """Any kinds of rows, keys of all 64 bits and positions past 32 bits."""
    dice = random.Random(seed)
    kinds = [dice.choice((GREEDY, UNFILTERED, FILTERED, FILTERED, FILTERED)) for _ in range(count)]
    lines = [
        settings_line(
            kind=kind,
            temperature=dice.choice((1e-6, 0.3, 1.0, 2.0, 50.0)),
            top_k=dice.choice((NO_TOP_K, NO_TOP_K, 1, 7, 90, 500)),
            top_p=dice.choice((1.0, 1e-9, 0.3, 0.9, 0.999)),
            min_p=dice.choice((0.0, 0.0, 0.02, 1.0)),
            random_key=dice.getrandbits(64),
        )
        for kind in kinds
    ]
    rows = dice.sample(range(count), count)
    positions_S = torch.tensor([dice.getrandbits(34) for _ in range(count)])
    return Draws.of([kinds[row] for row in rows], torch.tensor(lines), torch.tensor(rows), positions_S)


@pytest.mark.parametrize("spread", [0.0, 0.2, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("is_rounded", [False, True])
def test_any_settings_at_any_spread(spread: float, is_rounded: bool) -> None:
    """From flat rows, where most tokens are looked at, to rows with one likely token. Rounding makes ties."""
    generator = torch.Generator().manual_seed(int(spread * 10))
    logits_SV = torch.randn(60, 1535, generator=generator) * spread
    if is_rounded:
        logits_SV = (logits_SV * 8).round() / 8
    logits_SV = logits_SV[:, 3:1503]
    logits_SV[:, 11] = -torch.inf
    draws = any_draws(60, int(spread * 10))
    assert torch.equal(choose_tokens(logits_SV, draws), choose_plain(logits_SV, draws))


def test_a_row_chooses_alone_as_in_a_batch() -> None:
    logits_SV = torch.randn(20, 5000, generator=torch.Generator().manual_seed(3)) * 3
    draws = any_draws(20, 3)
    together_2S = choose_tokens(logits_SV, draws)
    for place in range(20):
        one = slice(place, place + 1)
        alone = Draws(
            settings=draws.settings,
            rows_S=draws.rows_S[one],
            positions_S=draws.positions_S[one],
            unfiltered=[],
            filtered=[],
        )
        assert torch.equal(choose_tokens(logits_SV[one], alone), together_2S[:, one])


@pytest.mark.parametrize("temperature", [5e-324, 1e-45, 1e-38])
@pytest.mark.parametrize("best", [0.0, 0.01, -0.01, 1e-30, 3e38])
def test_the_coldest_temperatures_choose_the_best(temperature: float, best: float) -> None:
    """Whatever its logit: small ones stand such a temperature, and infinity times 0 is no number."""
    logits_SV = torch.full((2, 1500), -2.0)
    logits_SV[:, 700] = best
    kinds = [UNFILTERED, FILTERED]
    lines = [
        settings_line(kind=kind, temperature=temperature, top_k=9, top_p=0.9, min_p=0.0, random_key=1)
        for kind in kinds
    ]
    draws = Draws.of(kinds, torch.tensor(lines), torch.arange(2), torch.arange(2))
    for choose in (choose_tokens, choose_plain):
        assert choose(logits_SV, draws).tolist() == [[700, 700], [0, 0]]


def test_draws_follow_the_distribution() -> None:
    logits_V = torch.tensor([0.0, 1.0, 2.0, -torch.inf, 3.0])
    count = 40_000
    line = settings_line(kind=UNFILTERED, temperature=1.0, top_k=NO_TOP_K, top_p=1.0, min_p=0.0, random_key=5)
    rows_S = torch.zeros(count, dtype=torch.int64)
    draws = Draws.of([UNFILTERED] * count, torch.tensor([line]), rows_S, torch.arange(count))
    tokens_S = choose_tokens(logits_V.repeat(count, 1), draws)[0]
    shares_V = torch.bincount(tokens_S, minlength=5) / count
    torch.testing.assert_close(shares_V, logits_V.softmax(0), rtol=0, atol=0.01)


def test_rows_that_cannot_choose_spoil_only_themselves() -> None:
    logits_SV = torch.randn(5, 700, generator=torch.Generator().manual_seed(4))
    logits_SV[1, 600], logits_SV[2, 699], logits_SV[3] = torch.nan, torch.inf, -torch.inf
    draws = any_draws(5, 4)
    found_2S = choose_tokens(logits_SV, draws)
    assert found_2S[1].tolist() == [0, 1, 1, 2, 0]
    assert found_2S[0, 1:4].tolist() == [0, 0, 0]
    assert torch.equal(found_2S, choose_plain(logits_SV, draws))
