"""Samplers that cut a distribution into shape by its statistics: top-n-sigma, typical and XTC.

Each gives the mask of what stays, in the order in which the worker applies them; between typical and XTC
stand min_p, top_k and top_p. Nothing waits for the device, so numbers go into masked_fill and not into
torch.where, which would copy them there. Sums are of whole numbers, which add up to the same in any
order: a row's result depends on no other row, and on no number of threads. Tokens of equal probability
share their fate. R rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.ops.sampling.draw import ONE, exact_weights, mass
from octavo.ops.sampling.settings import NO_TOP_K, Filters

_STEPS = 2.0**12
_FARTHEST = 2.0**10
"""Distances below the largest logit, for top-n-sigma: to 1/4096, and up to 1024. Squares of so many of
them as any vocabulary has fit in 64 bits."""


def within_sigma(logits_RV: Tensor, num_sigmas_R1: Tensor) -> Tensor:
    """top_n_sigma: logits not below the largest less n standard deviations. n = 0 or less keeps all.

    "Top-nσ: not all logits are you need" (Tang et al., 2024). The deviation is that of all logits above
    minus infinity. Temperature changes nothing about who stays.
    """
    best_R1 = logits_RV.amax(-1, keepdim=True)
    is_possible_RV = logits_RV > -torch.inf
    below_RV = (best_R1 - logits_RV).clamp_(max=_FARTHEST).mul_(_STEPS).round_()
    below_RV = below_RV.masked_fill_(~is_possible_RV, 0.0).nan_to_num_(0.0).to(torch.int64)
    count_R1 = is_possible_RV.sum(-1, keepdim=True).clamp_(min=1).double()
    mean_R1 = below_RV.sum(-1, keepdim=True).double() / count_R1
    square_R1 = (below_RV * below_RV).sum(-1, keepdim=True).double() / count_R1
    sigma_R1 = (square_R1 - mean_R1 * mean_R1).clamp_(min=0.0).sqrt_() / _STEPS
    lowest_R1 = best_R1 - (num_sigmas_R1 * sigma_R1).float()
    return (logits_RV >= lowest_R1) | (num_sigmas_R1 <= 0.0)


def typical(p_RV: Tensor, share_R1: Tensor) -> Tensor:
    """typical_p: the tokens whose surprise is nearest to the entropy, until they weigh more than the share.

    "Locally typical sampling" (Meister et al., 2022). The token that passes the share stays. A share of 1
    keeps all.
    """
    surprise_RV = -p_RV.double().clamp_(min=1e-300).log_()
    terms_RV = (p_RV * surprise_RV * ONE).round_().to(torch.int64)
    entropy_R1 = terms_RV.sum(-1, keepdim=True).double() / ONE
    # A token of no probability is far from typical, but its logarithm would not be a number.
    oddness_RV = (surprise_RV - entropy_R1).abs_().float()
    ranked_RV, order_RV = oddness_RV.sort(dim=-1, stable=True)
    weights_RV = exact_weights(p_RV).gather(1, order_RV).double()
    before_RV = weights_RV.cumsum(-1) - weights_RV
    num_kept_R1 = (before_RV <= share_R1 * ONE).sum(-1, keepdim=True).clamp_(min=1)
    oddest_R1 = ranked_RV.gather(1, num_kept_R1 - 1)
    return (oddness_RV <= oddest_R1) | (share_R1 >= 1.0)


def inside_filters(p_RV: Tensor, filters: Filters, is_cut_R1: Tensor) -> Tensor:
    """min_p, top_k and top_p as filters.py defines them, by one sort of the row.

    is_cut: rows from which something was dropped before, so that top_p has to add up what is left.
    """
    ranked_RV = p_RV.sort(dim=-1, descending=True, stable=True).values
    lowest_R1 = ranked_RV[:, :1] * filters.min_p_R.float().unsqueeze(1)
    top_k_R1 = filters.top_k_R.unsqueeze(1)
    kth_R1 = ranked_RV.gather(1, (top_k_R1 - 1).clamp(max=p_RV.shape[-1] - 1))
    lowest_R1 = torch.where(top_k_R1 < NO_TOP_K, kth_R1.maximum(lowest_R1), lowest_R1)
    weights_RV = exact_weights(ranked_RV).double() * (ranked_RV >= lowest_R1)
    is_whole_R1 = (top_k_R1 >= NO_TOP_K) & (filters.min_p_R.unsqueeze(1) == 0.0) & ~is_cut_R1
    total_R1 = mass(weights_RV).unsqueeze(1).masked_fill_(is_whole_R1, ONE)
    top_p_R1 = filters.top_p_R.unsqueeze(1)
    above_RV = weights_RV.cumsum(-1) - weights_RV
    is_kept_RV = (above_RV < top_p_R1 * total_R1) & (weights_RV > 0)
    last_R1 = is_kept_RV.sum(-1, keepdim=True).clamp_(min=1) - 1
    nucleus_R1 = ranked_RV.gather(1, last_R1)
    lowest_R1 = torch.where(top_p_R1 < 1.0, nucleus_R1.maximum(lowest_R1), lowest_R1)
    return p_RV >= lowest_R1


def without_top_choices(p_RV: Tensor, is_kept_RV: Tensor, threshold_R1: Tensor, is_on_R1: Tensor) -> Tensor:
    """XTC: of the tokens that reach the threshold only the least likely stays, and all below it.

    "Exclude Top Choices" (p-e-w, text-generation-webui 6335; llama.cpp). Probabilities count within what
    was kept so far. With fewer than two such tokens nothing is dropped. is_on: rows whose coin says so.
    """
    kept_RV = p_RV * is_kept_RV
    total_R1 = mass(exact_weights(kept_RV)).unsqueeze(1) / ONE
    is_top_RV = is_kept_RV & (kept_RV.double() >= threshold_R1 * total_R1)
    least_R1 = p_RV.masked_fill(~is_top_RV, torch.inf).amin(-1, keepdim=True)
    return is_kept_RV & ~(is_on_R1 & (p_RV > least_R1))
