"""The sampling kernels choose what the plain form chooses. Interpreted here; natively in tests/gpu."""

from __future__ import annotations

import random

import pytest
import torch

pytest.importorskip("triton")

from octavo.ops.sampling.choose import choose_plain, choose_tokens
from octavo.ops.sampling.settings import FILTERED, GREEDY, NO_TOP_K, UNFILTERED, Draws, settings_line
from octavo.ops.triton import sampling

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="runs natively there")


def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks and fewer candidates than tokens, also where the vocabulary is small."""
    monkeypatch.setattr(sampling, "CHUNK", 512)
    monkeypatch.setattr(sampling, "CANDIDATE_BLOCKS", 8)


@pytest.mark.parametrize("number", range(4))
def test_examples(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits_SV, draws = list(choose_tokens.examples())[number]
    if logits_SV.shape[1] > 257:
        small_pieces(monkeypatch)
    before_SV = logits_SV.clone()
    found_2S = sampling.choose_tokens(logits_SV, draws)
    assert found_2S.dtype == torch.int32
    assert torch.equal(found_2S, choose_plain(logits_SV, draws))
    assert torch.equal(logits_SV.nan_to_num(7.0), before_SV.nan_to_num(7.0))


def random_draws(count: int, seed: int) -> Draws:
    """Any kinds of rows, keys of all 64 bits and positions past 32 bits."""
    dice = random.Random(seed)
    kinds = [dice.choice((GREEDY, UNFILTERED, FILTERED, FILTERED, FILTERED)) for _ in range(count)]
    lines = [
        settings_line(
            kind=kind,
            temperature=dice.choice((1e-6, 0.3, 1.0, 2.0, 50.0)),
            top_k=dice.choice((NO_TOP_K, 1, 7, 90, 500)),
            top_p=dice.choice((1.0, 1e-9, 0.3, 0.9, 0.999)),
            min_p=dice.choice((0.0, 0.0, 0.02, 1.0)),
            random_key=dice.getrandbits(64),
        )
        for kind in kinds
    ]
    rows = dice.sample(range(count), count)
    positions_S = torch.tensor([dice.getrandbits(34) for _ in range(count)])
    by_place = [kinds[row] for row in rows]
    return Draws.of(by_place, torch.tensor(lines), torch.tensor(rows), positions_S)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(3))
def test_any_settings(seed: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded logits make ties, a view of wider logits rows that are not contiguous."""
    small_pieces(monkeypatch)
    generator = torch.Generator().manual_seed(seed)
    logits_SV = torch.randn(8, 1016, generator=generator) * (0.2, 2.0, 5.0)[seed]
    if seed != 1:
        logits_SV = (logits_SV * 8).round() / 8
    logits_SV = logits_SV.to(dtype)[:, :1000]
    draws = random_draws(8, seed)
    assert torch.equal(sampling.choose_tokens(logits_SV, draws), choose_plain(logits_SV, draws))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_lowest_index_among_equals(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch)
    logits_SV = torch.randn(5, 1000, generator=torch.Generator().manual_seed(1)).to(dtype)
    logits_SV[0, [700, 3, 999]] = 9.0
    logits_SV[1] = -5.0
    logits_SV[2] = -torch.inf
    logits_SV[2, 801] = -100.0
    logits_SV[3] = -1.0
    logits_SV[3, [900, 100]] = torch.tensor([0.0, -0.0], dtype=dtype)
    found_2S = sampling.choose_tokens(logits_SV, None)
    assert found_2S[0].tolist() == [3, 0, 801, 100, int(logits_SV[4].argmax())]
    assert not found_2S[1].any()


def test_a_broken_row_disturbs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    small_pieces(monkeypatch)
    draws = random_draws(6, 5)
    logits_SV = torch.randn(6, 600, generator=torch.Generator().manual_seed(2))
    healthy_2S = sampling.choose_tokens(logits_SV, draws)
    logits_SV[1, 590], logits_SV[2, 5], logits_SV[4] = torch.nan, torch.inf, -torch.inf
    found_2S = sampling.choose_tokens(logits_SV, draws)
    assert found_2S[1].tolist() == [0, 1, 1, 0, 2, 0]
    assert found_2S[0, [1, 2, 4]].tolist() == [0, 0, 0]
    assert torch.equal(found_2S[0, [0, 3, 5]], healthy_2S[0, [0, 3, 5]])
