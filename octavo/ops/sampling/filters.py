"""Temperature, min_p, top_k and top_p, in this order, and the draw of a token from what they leave.

Each filter is a threshold: tokens of equal probability are kept or dropped together, so the kept set
does not depend on any sort order. Masses are exact (draw.py), so the quick way (candidates from the
blocks with the largest maxima) and the full way (radix selection over the row) give the same token.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.ops.sampling.blocks import BLOCK, as_blocks, pad_to_blocks
from octavo.ops.sampling.draw import ONE, draw, exact_weights, mass
from octavo.ops.sampling.settings import NO_TOP_K, Filters

CANDIDATE_BLOCKS = 128
RANKED = 256
_LARGEST = 1e37
_DIGIT_BITS = 15
_DIGITS = 1 << _DIGIT_BITS


def probabilities(logits_RV: Tensor, best_R: Tensor, temperature_R: Tensor) -> Tensor:
    """float32 distribution after temperature, padded with zeros to whole blocks.

    best_R: the largest logit of each row. Where a tiny temperature would send it, or its own inverse, to
    infinity, the temperature that just does not is as good. softmax works row by row, so a row's bits do
    not depend on its neighbours.
    """
    coldness_R = 1.0 / temperature_R.maximum(best_R.double().abs().clamp(min=1.0) / _LARGEST)
    return pad_to_blocks(torch.softmax(logits_RV.float() * coldness_R.float().unsqueeze(1), dim=-1), 0.0)


def draw_unfiltered(p_RV: Tensor, uniform_R: Tensor) -> Tensor:
    """One token per row from the whole distribution."""
    return draw(exact_weights(p_RV), uniform_R)


def draw_filtered(p_RV: Tensor, filters: Filters, uniform_R: Tensor) -> Tensor:
    """One token per row from what min_p, top_k and top_p leave."""
    tokens_R, is_sure_R = _draw_from_candidates(p_RV, filters, uniform_R)
    unsure = (~is_sure_R).nonzero().squeeze(1)
    if unsure.numel():
        p_UV, filters_U = p_RV[unsure], filters.take(unsure)
        weights_UV = exact_weights(p_UV)
        threshold_U = full_threshold(p_UV, weights_UV, filters_U)
        weights_UV.mul_(p_UV >= threshold_U.unsqueeze(1))
        tokens_R[unsure] = draw(weights_UV, uniform_R[unsure])
    return tokens_R


def _draw_from_candidates(p_RV: Tensor, filters: Filters, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [R], and whether each is sure: every token that the filters keep was among the candidates."""
    blocks_RNB = as_blocks(p_RV)
    num_blocks = blocks_RNB.shape[1]
    maxima_RN = blocks_RNB.amax(-1)
    if num_blocks > CANDIDATE_BLOCKS:
        best = maxima_RN.topk(CANDIDATE_BLOCKS + 1, dim=-1)
        chosen_RK = best.indices[:, :-1].sort(-1).values  # token order, as in the whole row
        outside_R = best.values[:, -1]
        p_RC = blocks_RNB.gather(1, chosen_RK.unsqueeze(-1).expand(-1, -1, BLOCK)).flatten(1)
    else:
        chosen_RK = torch.arange(num_blocks, device=p_RV.device).expand(p_RV.shape[0], -1)
        outside_R = torch.full_like(uniform_R, -1.0, dtype=torch.float32)
        p_RC = p_RV
    weights_RC = exact_weights(p_RC)
    threshold_R, is_ranked_R = _candidate_threshold(p_RC, weights_RC, filters, outside_R)
    weights_RC.mul_(p_RC >= threshold_R.unsqueeze(1))
    index_R1 = draw(weights_RC, uniform_R).unsqueeze(1)
    tokens_R = (chosen_RK.gather(1, index_R1 // BLOCK) * BLOCK + index_R1 % BLOCK).squeeze(1)
    return tokens_R, is_ranked_R & (threshold_R > outside_R)


def _candidate_threshold(
    p_RC: Tensor, weights_RC: Tensor, filters: Filters, outside_R: Tensor
) -> tuple[Tensor, Tensor]:
    """Smallest kept probability [R], and whether the ranked candidates were enough to know it."""
    num_ranked = min(RANKED, p_RC.shape[-1])
    ranked_RK = p_RC.topk(num_ranked, dim=-1).values
    threshold_R = ranked_RK[:, 0] * filters.min_p_R.float()
    is_short_R = filters.top_k_R <= num_ranked
    kth_R = ranked_RK.gather(1, (filters.top_k_R.clamp(max=num_ranked) - 1).unsqueeze(1)).squeeze(1)
    threshold_R = torch.where(is_short_R, kth_R.maximum(threshold_R), threshold_R)
    is_known_R = is_short_R | (filters.top_k_R >= NO_TOP_K)
    is_cut_R = filters.top_p_R < 1.0
    if bool(is_cut_R.any()):
        kept_RC = weights_RC * (p_RC >= threshold_R.unsqueeze(1))
        is_whole_R = _is_whole(filters)
        is_known_R = is_known_R & (is_whole_R | (threshold_R > outside_R) | ~is_cut_R)
        total_R = torch.where(is_whole_R, ONE, mass(kept_RC))
        ranked_weights_RK = exact_weights(ranked_RK).double()
        above_RK = ranked_weights_RK.cumsum(-1) - ranked_weights_RK
        is_kept_RK = above_RK < (filters.top_p_R * total_R).unsqueeze(1)
        num_kept_R1 = is_kept_RK.sum(-1, keepdim=True)
        nucleus_R = ranked_RK.gather(1, (num_kept_R1 - 1).clamp(min=0)).squeeze(1)
        # All ranked ones kept: what comes after them may be kept too, unless another filter ends here.
        ends_R = (num_kept_R1.squeeze(1) < num_ranked) | (ranked_RK[:, -1] <= threshold_R) | ~is_cut_R
        is_known_R = is_known_R & ends_R
        threshold_R = torch.where(is_cut_R, nucleus_R.maximum(threshold_R), threshold_R)
    return threshold_R, is_known_R


def _is_whole(filters: Filters) -> Tensor:
    """Rows where top_p sees the untouched distribution: its mass is 1 by definition, no need to add it up."""
    return (filters.min_p_R == 0.0) & (filters.top_k_R >= NO_TOP_K)


def full_threshold(p_RV: Tensor, weights_RV: Tensor, filters: Filters) -> Tensor:
    """Smallest kept probability [R] by selection over whole rows: for flat distributions and large top_k."""
    threshold_R = p_RV.amax(-1) * filters.min_p_R.float()
    if bool((filters.top_k_R < NO_TOP_K).any()):
        kth_R = _select(p_RV, torch.ones_like(weights_RV), filters.top_k_R.double())
        threshold_R = torch.where(filters.top_k_R < NO_TOP_K, kth_R.maximum(threshold_R), threshold_R)
    if bool((filters.top_p_R < 1.0).any()):
        kept_RV = weights_RV * (p_RV >= threshold_R.unsqueeze(1))
        total_R = torch.where(_is_whole(filters), ONE, mass(kept_RV))
        nucleus_R = _select(p_RV, kept_RV, filters.top_p_R * total_R)
        threshold_R = torch.where(filters.top_p_R < 1.0, nucleus_R.maximum(threshold_R), threshold_R)
    return threshold_R


def _select(p_RV: Tensor, weights_RV: Tensor, target_R: Tensor) -> Tensor:
    """Smallest value of each row such that the values above it weigh less than the target.

    Two rounds of radix selection on the bits of the floats, which sort like the floats as none is
    negative. Sums are exact, so this equals sorting and adding up, without the sort.
    """
    bits_RV = p_RV.view(torch.int32).to(torch.int64)
    high_R1, above_R1 = _boundary_digit(bits_RV >> _DIGIT_BITS, weights_RV, target_R.unsqueeze(1))
    inside_RV = weights_RV * ((bits_RV >> _DIGIT_BITS) == high_R1)
    low_R1, _ = _boundary_digit(bits_RV & (_DIGITS - 1), inside_RV, target_R.unsqueeze(1) - above_R1)
    return ((high_R1 << _DIGIT_BITS) | low_R1).to(torch.int32).view(torch.float32).squeeze(1)


def _boundary_digit(digits_RV: Tensor, weights_RV: Tensor, target_R1: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest occupied digit whose larger digits weigh less than the target, and what those weigh."""
    mass_RD = torch.zeros(len(weights_RV), _DIGITS, dtype=torch.float64, device=weights_RV.device)
    mass_RD.scatter_add_(1, digits_RV, weights_RV.double())
    above_RD = mass_RD.flip(-1).cumsum(-1).flip(-1) - mass_RD
    is_kept_RD = (above_RD < target_R1) & (mass_RD > 0)
    digit_R1 = is_kept_RD.to(torch.uint8).argmax(-1, keepdim=True)
    return digit_R1, above_RD.gather(1, digit_R1)
