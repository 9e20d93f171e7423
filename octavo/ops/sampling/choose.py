"""choose_tokens: one token for each row of logits. S rows of the step, V vocabulary, R some of the rows.

The result of a row depends on its logits, settings and position alone, on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from octavo.base.table import LazyTable
from octavo.ops.contract import Op
from octavo.ops.sampling.blocks import best_token
from octavo.ops.sampling.filters import draw_filtered, draw_unfiltered, probabilities
from octavo.ops.sampling.random import uniforms
from octavo.ops.sampling.settings import (
    FILTERED,
    GREEDY,
    KEYS,
    NO_TOP_K,
    UNFILTERED,
    Draws,
    Filters,
    settings_line,
)

FINE, BROKEN, EMPTY = range(3)
"""Codes of rows: a token was chosen; a logit is NaN or infinite; all logits are minus infinity."""

_ENTRIES_AT_ONCE = 1 << 20
"""Logits drawn from at a time: the arrays of one piece stay in the processor's cache."""


def choose_plain(logits_SV: Tensor, draws: Draws | None) -> Tensor:
    """int32 [2, S]: the tokens (0 where none could be chosen), and the rows' codes.

    `draws` is None where every row is greedy. Greedy rows take the lowest index among equals. This form
    may wait for the device.
    """
    best_S, token_S = best_token(logits_SV)
    unusable: list[int] = (~best_S.isfinite()).nonzero().squeeze(1).tolist()
    if draws is not None:
        if unusable:
            # A copy with these rows set to 0, so that what is computed on them stays harmless.
            logits_SV = logits_SV.clone()
            logits_SV[unusable] = 0.0
        _draw(logits_SV, best_S.nan_to_num(0.0, 0.0, 0.0) if unusable else best_S, token_S, draws)
    chosen_2S = torch.zeros(2, len(token_S), dtype=torch.int32, device=logits_SV.device)
    chosen_2S[0] = token_S
    if unusable:
        chosen_2S[0, unusable] = 0
        chosen_2S[1, unusable] = torch.where(best_S[unusable] == -torch.inf, EMPTY, BROKEN).int()
    return chosen_2S


def _draw(logits_SV: Tensor, best_S: Tensor, token_S: Tensor, draws: Draws) -> None:
    """Replace the greedy tokens of rows that draw."""
    lines_SW = draws.settings[draws.rows_S]
    uniform_S = uniforms(draws.positions_S, lines_SW[:, KEYS:])
    at_once = max(1, _ENTRIES_AT_ONCE // logits_SV.shape[1])
    for places, is_filtered in ((draws.unfiltered, False), (draws.filtered, True)):
        for start in range(0, len(places), at_once):
            part = places[start : start + at_once]
            place_R = torch.tensor(part, device=logits_SV.device)
            filters = Filters.of(lines_SW[place_R])
            p_RV = probabilities(_take(logits_SV, part), best_S[place_R], filters.temperature_R)
            if is_filtered:
                token_S[place_R] = draw_filtered(p_RV, filters, uniform_S[place_R])
            else:
                token_S[place_R] = draw_unfiltered(p_RV, uniform_S[place_R])


def _take(logits_SV: Tensor, places: list[int]) -> Tensor:
    """The logits of these places (ascending), without a copy where they are neighbours."""
    first, last = places[0], places[-1]
    return logits_SV[first : last + 1] if last - first == len(places) - 1 else logits_SV[places]


EXAMPLE_SETTINGS = [
    (GREEDY, 0.0, NO_TOP_K, 1.0, 0.0),
    (UNFILTERED, 0.8, NO_TOP_K, 1.0, 0.0),
    (UNFILTERED, 100.0, NO_TOP_K, 1.0, 0.0),
    (UNFILTERED, 1e-6, NO_TOP_K, 1.0, 0.0),
    (FILTERED, 1.0, 50, 1.0, 0.0),
    (FILTERED, 0.8, NO_TOP_K, 0.95, 0.0),
    (FILTERED, 0.7, 50, 0.95, 0.0),
    (FILTERED, 1.0, NO_TOP_K, 1.0, 0.05),
    (FILTERED, 1.5, 300, 0.9, 0.01),
    (FILTERED, 100.0, NO_TOP_K, 0.9, 0.0),
    (FILTERED, 5.0, 700, 1.0, 0.0),
    (FILTERED, 1.0, 1, 1e-9, 1.0),
]
"""Kind, temperature, top_k, top_p, min_p: quick and long searches, each filter alone and all of them."""


def _examples() -> Iterator[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(0)
    count = len(EXAMPLE_SETTINGS)
    lines = [
        settings_line(
            kind=kind, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, random_key=place
        )
        for place, (kind, temperature, top_k, top_p, min_p) in enumerate(EXAMPLE_SETTINGS)
    ]
    kinds = [line[0] for line in lines]
    for vocab_size, spread in ((257, 2.0), (1200, 4.0), (1200, 0.3)):
        logits_SV = torch.randn(count, vocab_size, generator=generator) * spread
        logits_SV[:, 7] = -torch.inf
        rows_S = torch.arange(count)
        yield logits_SV, Draws.of(kinds, torch.tensor(lines), rows_S, rows_S * 1000)
    broken_SV = torch.randn(4, 100, generator=generator)
    broken_SV[1, 50], broken_SV[2, 99], broken_SV[3] = torch.nan, torch.inf, -torch.inf
    yield broken_SV, None


choose_tokens = Op(
    name="choose_tokens",
    plain=choose_plain,
    providers=LazyTable(
        "choose_tokens provider",
        {"cpu": "octavo.ops.cpu.host:choose_tokens", "cuda": "octavo.ops.triton.sampling:choose_tokens"},
    ),
    examples=_examples,
    tolerance=0.0,
)
