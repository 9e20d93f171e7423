"""Attention with what torch's own does not know: soft caps, sinks, linear biases. Where we have no kernels.

B sequences, K KV heads, G query heads for each, T queries, L keys, D head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from octavo.ops.paged_plain import AttentionTerms, linear_biases

SCORES_AT_ONCE = 1 << 24
"""Queries are served in slices of at most so many scores, 64 MB."""


class Positions(NamedTuple):
    """Where queries and keys stand in their texts."""

    queries: torch.Tensor
    """Broadcast to [B, K, G, T, 1]"""
    keys: torch.Tensor
    """Broadcast to [B, K, G, 1, L]"""


def attend_with_terms(
    q_BHTD: torch.Tensor,
    k_BKLD: torch.Tensor,
    v_BKLD: torch.Tensor,
    bias: torch.Tensor | None,
    terms: AttentionTerms,
    positions: Positions,
    *,
    is_causal: bool,
) -> torch.Tensor:
    """[B, H, T, D]. bias: broadcast to [B, K, G, T, L] and added to the scores. Computed in float32."""
    size, num_heads, num_queries, head_dim = q_BHTD.shape
    num_kv_heads, length = k_BKLD.shape[1:3]
    q_BKGTD = q_BHTD.float().reshape(size, num_kv_heads, -1, num_queries, head_dim) * terms.scale
    k_BKDL, v_BKLD = k_BKLD.float().transpose(-1, -2), v_BKLD.float()
    if is_causal:
        bias = torch.full((num_queries, length), float("-inf"), device=q_BHTD.device).triu_(1)
    step = max(1, SCORES_AT_ONCE // (size * num_heads * length))
    slices = [
        _attend(
            q_BKGTD[..., start : start + step, :],
            k_BKDL,
            v_BKLD,
            bias if bias is None or bias.shape[-2] == 1 else bias[..., start : start + step, :],
            terms,
            Positions(positions.queries[..., start : start + step, :], positions.keys),
        )
        for start in range(0, num_queries, step)
    ]
    return torch.cat(slices, -2).reshape(q_BHTD.shape).to(q_BHTD.dtype)


def _attend(
    q_BKGTD: torch.Tensor,
    k_BKDL: torch.Tensor,
    v_BKLD: torch.Tensor,
    bias: torch.Tensor | None,
    terms: AttentionTerms,
    positions: Positions,
) -> torch.Tensor:
    """[B, K, G, T, D]"""
    # The heads of a group ride as queries, so that keys are not repeated.
    scores = (q_BKGTD.flatten(2, 3) @ k_BKDL).view(*q_BKGTD.shape[:4], -1)
    if terms.soft_cap is not None:
        scores = scores.div_(terms.soft_cap).tanh_().mul_(terms.soft_cap)
    if terms.slopes_H is not None:
        slopes_KG11 = terms.slopes_H.view(*scores.shape[1:3], 1, 1)
        scores = scores + linear_biases(terms, slopes_KG11, *positions)
    if bias is not None:
        scores = scores + bias
    weights = _softmax(scores, terms.sinks_H)
    return (weights.flatten(2, 3) @ v_BKLD).view(q_BKGTD.shape)


def _softmax(scores_BKGTL: torch.Tensor, sinks_H: torch.Tensor | None) -> torch.Tensor:
    if sinks_H is None:
        return torch.softmax(scores_BKGTL, -1)
    sinks_KG11 = sinks_H.float().view(*scores_BKGTL.shape[1:3], 1, 1)
    sinks = sinks_KG11.expand(*scores_BKGTL.shape[:-1], 1)
    return torch.softmax(torch.cat((scores_BKGTL, sinks), -1), -1)[..., :-1]
