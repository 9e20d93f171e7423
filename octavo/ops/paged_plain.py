"""Attention over a paged KV cache in plain torch: the meaning of every attention kernel.

S sequences, T query tokens, H query heads, K KV heads, D head width, B blocks, N tokens per block, L keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

ScoreBias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""From queries and keys of whole texts [B, H, L, D] to what their scaled scores get: [B or 1, H, L, L]."""


@dataclass(frozen=True, kw_only=True)
class AttentionTerms:
    """What a layer adds to plain softmax attention. The same for every step."""

    scale: float
    window: int | None = None
    """Keys a query sees, its own included; None: all before it."""
    soft_cap: float | None = None
    """Scores become cap * tanh(score / cap), after scaling (Gemma 2)."""
    sinks_H: torch.Tensor | None = None
    """float32: a logit per head that takes part in the softmax and has no value (GPT-OSS)."""
    slopes_H: torch.Tensor | None = None
    """float32: scores gain slope * (key's position - query's), behind scale and cap (ALiBi)."""
    rounds_biases: bool = False
    """Positions, and slopes times them, become bfloat16 numbers and are scaled like scores (Falcon). Slopes
    are such numbers."""
    bias: ScoreBias | None = None
    """Only of encoders, whose texts are computed whole."""

    @property
    def has_plain_softmax(self) -> bool:
        """A window aside, this is the softmax of scaled scores."""
        terms = (self.soft_cap, self.sinks_H, self.slopes_H, self.bias)
        return all(term is None for term in terms)


def paged_attention(
    q_THD: torch.Tensor,
    keys_BKND: torch.Tensor,
    values_BKND: torch.Tensor,
    tables_SM: torch.Tensor,
    query_starts: list[int],
    lengths: list[int],
    terms: AttentionTerms,
) -> torch.Tensor:
    """Attention of the last query_starts[i + 1] - query_starts[i] tokens of each sequence.

    [T, H, D], or as wide as values are where these have another width.

    tables_SM: block ids of each sequence in order; lengths: its tokens, this step's included, whose keys
    and values are in the pages. Pages may have any strides. Computed in float32.
    """
    out_THD = q_THD.new_empty(*q_THD.shape[:2], values_BKND.shape[3])
    for i, length in enumerate(lengths):
        start, end = query_starts[i], query_starts[i + 1]
        out_THD[start:end] = _one_sequence(
            q_THD[start:end].float(),
            _keys_of(keys_BKND, tables_SM[i], length),
            _keys_of(values_BKND, tables_SM[i], length),
            terms,
        ).to(q_THD.dtype)
    return out_THD


def _keys_of(pages_BKND: torch.Tensor, table_M: torch.Tensor, length: int) -> torch.Tensor:
    """[K, L, D] float32"""
    block_size = pages_BKND.shape[2]
    used = table_M[: -(-length // block_size)].long()
    return pages_BKND[used].transpose(0, 1).flatten(1, 2)[:, :length].float()


def _one_sequence(
    q_THD: torch.Tensor, k_KLD: torch.Tensor, v_KLD: torch.Tensor, terms: AttentionTerms
) -> torch.Tensor:
    group = q_THD.shape[1] // k_KLD.shape[0]
    k_HLD, v_HLD = k_KLD.repeat_interleave(group, 0), v_KLD.repeat_interleave(group, 0)
    scores_HTL = q_THD.transpose(0, 1) @ k_HLD.transpose(1, 2) * terms.scale
    if terms.soft_cap is not None:
        scores_HTL = terms.soft_cap * torch.tanh(scores_HTL / terms.soft_cap)
    num_queries, length = scores_HTL.shape[1:]
    query_T1 = torch.arange(length - num_queries, length, device=q_THD.device)[:, None]
    key_L = torch.arange(length, device=q_THD.device)
    if terms.slopes_H is not None:
        scores_HTL = scores_HTL + linear_biases(terms, terms.slopes_H[:, None, None], query_T1, key_L)
    hidden_TL = key_L > query_T1
    if terms.window is not None:
        hidden_TL |= key_L <= query_T1 - terms.window
    scores_HTL = scores_HTL.masked_fill(hidden_TL, float("-inf"))
    # Pages hold anything where nothing was written, and 0 * NaN is NaN: unseen values must not count.
    is_seen_L = ~hidden_TL.all(0)
    v_HLD = torch.where(is_seen_L[None, :, None], v_HLD, 0.0)
    scores_HTL = torch.where(hidden_TL, float("-inf"), scores_HTL)
    if terms.sinks_H is not None:
        sinks_HT1 = terms.sinks_H.float()[:, None, None].expand(-1, num_queries, 1)
        weights = torch.softmax(torch.cat((scores_HTL, sinks_HT1), -1), -1)[..., :-1]
    else:
        weights = torch.softmax(scores_HTL, -1)
    return (weights @ v_HLD).transpose(0, 1)


def linear_biases(
    terms: AttentionTerms, slopes: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """What scores gain, float32, in the shape that slopes and positions have together.

    Press et al. 2021. transformers adds slope * key. With the query's own position taken off the softmax is
    the same, and the keys nearby, which count most, have the smallest numbers.
    """
    if terms.rounds_biases:
        return (_rounded_bias(slopes, keys) - _rounded_bias(slopes, queries)) * terms.scale
    return slopes * (keys - queries)


def _rounded_bias(slopes: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return (slopes.bfloat16() * positions.bfloat16()).float()
