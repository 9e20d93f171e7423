"""top_n_sigma, typical_p and XTC, and the filters between them: what they drop gets the logit -inf.

The order: top_n_sigma, temperature, typical_p, min_p, top_k, top_p, XTC. All filters of such a row run
here, and it then draws from all that is left: octavo/ops/sampling/shape.py has what each means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.ops.sampling.filters import probabilities
from octavo.ops.sampling.random import XTC_COINS, uniforms
from octavo.ops.sampling.settings import KEYS, Filters
from octavo.ops.sampling.shape import inside_filters, typical, within_sigma, without_top_choices
from octavo.worker.sampling.history import History
from octavo.worker.sampling.rows import SamplingRows
from octavo.worker.upload import upload

_ENTRIES_AT_ONCE = 1 << 20
"""Logits shaped at a time: a dozen arrays of this size exist together."""


def apply_shape(logits_SV: Tensor, places: list[int], history: History, settings: SamplingRows) -> None:
    """Change the logits (float32) of these places in place."""
    at_once = max(1, _ENTRIES_AT_ONCE // logits_SV.shape[1])
    for start in range(0, len(places), at_once):
        place_R = upload(places[start : start + at_once], torch.int64, logits_SV.device)
        logits_RV = logits_SV[place_R]
        is_kept_RV = _kept(logits_RV, history, settings, place_R)
        logits_SV[place_R] = logits_RV.masked_fill_(~is_kept_RV, -torch.inf)


def _kept(logits_RV: Tensor, history: History, settings: SamplingRows, place_R: Tensor) -> Tensor:
    rows_R = history.rows_S[place_R]
    lines_RW = settings.lines(rows_R)
    filters = Filters.of(lines_RW)
    sigmas_R1, typical_R1, probability_R1, threshold_R1 = settings.shapes(rows_R)
    best_R = logits_RV.amax(-1)

    is_near_RV = within_sigma(logits_RV, sigmas_R1)
    p_RV = probabilities(logits_RV.masked_fill(~is_near_RV, -torch.inf), best_R, filters.temperature_R)
    p_RV *= typical(p_RV, typical_R1)
    is_kept_RV = inside_filters(p_RV, filters, is_cut_R1=typical_R1 < 1.0)
    coins_R1 = uniforms(history.lengths_S[place_R], lines_RW[:, KEYS:], XTC_COINS).unsqueeze(1)
    is_kept_RV = without_top_choices(p_RV, is_kept_RV & (p_RV > 0), threshold_R1, coins_R1 < probability_R1)
    # Rows that are broken, or have nothing left, are told of as they are.
    return is_kept_RV[:, : logits_RV.shape[1]] | ~best_R.isfinite().unsqueeze(1)
