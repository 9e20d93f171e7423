"""Log-probabilities of tokens and of the best ones beside them, from logits as the model made them.

They are taken before penalties, masks and temperature, in float32. Ranks count strictly larger logits;
among equal ones the lower token id comes first, so lists do not depend on how many were asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.messages.result import TokenLogprobs
from octavo.worker.sampling.blocks import best_tokens

_ENTRIES_AT_ONCE = 1 << 22
"""Logits turned into float32 log-probabilities at a time: 16 MiB for each array."""


def token_logprobs(logits_RV: Tensor, token_R: Tensor, top_R: list[int]) -> list[TokenLogprobs]:
    """For each row: its token, then the top_R[i] best ones (-1: all).

    The rows come in pieces of bounded size, each for the largest count among its rows.
    """
    vocab_size = logits_RV.shape[-1]
    rows_at_once = max(1, _ENTRIES_AT_ONCE // vocab_size)
    found: list[TokenLogprobs] = []
    for start in range(0, len(top_R), rows_at_once):
        part = slice(start, start + rows_at_once)
        counts = [vocab_size if top == -1 else min(top, vocab_size) for top in top_R[part]]
        found.extend(_token_logprobs(logits_RV[part].float(), token_R[part], counts))
    return found


def _token_logprobs(logits_RV: Tensor, token_R: Tensor, counts: list[int]) -> list[TokenLogprobs]:
    logprobs_RV = torch.log_softmax(logits_RV, dim=-1)
    token_R1 = token_R.unsqueeze(1)
    # A comparison into floats is several times quicker than into bools; the count is exact below 2**24.
    is_larger_RV = torch.gt(logits_RV, logits_RV.gather(1, token_R1), out=torch.empty_like(logits_RV))
    ranks = (is_larger_RV.sum(-1).to(torch.int64) + 1).tolist()
    ids_RK = token_R1
    if max(counts) > 0:
        ids_RK = torch.cat((token_R1, best_tokens(logits_RV, max(counts))[1]), dim=1)
    ids, values = ids_RK.tolist(), logprobs_RV.gather(1, ids_RK).tolist()
    return [
        TokenLogprobs(ids[i][: count + 1], values[i][: count + 1], ranks[i]) for i, count in enumerate(counts)
    ]


def prompt_logprobs(logits_TV: Tensor, next_token_ids: Tensor, top: int) -> list[TokenLogprobs]:
    """For each position of a prompt: the token that follows it, then the `top` best ones (-1: all)."""
    return token_logprobs(logits_TV, next_token_ids, [top] * len(logits_TV))
