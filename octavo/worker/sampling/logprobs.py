"""Log-probabilities of tokens and of the best ones beside them, from logits as the model made them.

They are taken before penalties, masks and temperature, in float32. Ranks count strictly larger logits;
among equal ones the lower token id comes first, so lists do not depend on how many were asked for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from octavo.messages.result import TokenLogprobs
from octavo.ops.sampling.blocks import best_tokens
from octavo.worker.upload import Download

_ENTRIES_AT_ONCE = 1 << 22
"""Logits turned into float32 log-probabilities at a time: 16 MiB for each array."""


class _Piece(NamedTuple):
    """A few rows: one int32 line each with its K token ids, the bits of their K values, and the rank."""

    lines: Download
    counts: list[int]

    def finish(self) -> list[TokenLogprobs]:
        lines = self.lines.read()
        width = lines.shape[1] // 2
        ids, ranks = lines[:, :width].tolist(), lines[:, -1].tolist()
        values = lines[:, width:-1].contiguous().view(torch.float32).tolist()
        return [
            TokenLogprobs(ids[i][: count + 1], values[i][: count + 1], ranks[i])
            for i, count in enumerate(self.counts)
        ]


class PendingLogprobs:
    """Log-probabilities on their way from the device."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self._pieces = pieces

    def followed_by(self, others: PendingLogprobs) -> PendingLogprobs:
        """These, and then the others."""
        return PendingLogprobs(self._pieces + others._pieces)

    def finish(self) -> list[TokenLogprobs]:
        """One per row. On a GPU the caller has waited for the step first."""
        return [found for piece in self._pieces for found in piece.finish()]


def token_logprobs(logits_RV: Tensor, token_R: Tensor, top_R: list[int]) -> PendingLogprobs:
    """For each row: its token, then the top_R[i] best ones (-1: all).

    The rows come in pieces of bounded size, each for the largest count among its rows.
    """
    vocab_size = logits_RV.shape[-1]
    pieces = []
    for part in _parts(logits_RV):
        counts = [vocab_size if top == -1 else min(top, vocab_size) for top in top_R[part]]
        logits_PV = logits_RV[part].float()
        best_PK = best_tokens(logits_PV, max(counts))[1] if max(counts) > 0 else None
        pieces.append(_Piece(Download(_lines(logits_PV, token_R[part], best_PK)), counts))
    return PendingLogprobs(pieces)


def given_logprobs(logits_RV: Tensor, token_R: Tensor, given_R: list[Tensor]) -> PendingLogprobs:
    """For each row: its token, then those given for it, int64 on the device."""
    pieces = []
    for part in _parts(logits_RV):
        given_PK = pad_sequence(given_R[part], batch_first=True)
        lines_PK = _lines(logits_RV[part].float(), token_R[part], given_PK)
        pieces.append(_Piece(Download(lines_PK), [len(given_K) for given_K in given_R[part]]))
    return PendingLogprobs(pieces)


def _parts(logits_RV: Tensor) -> list[slice]:
    at_once = max(1, _ENTRIES_AT_ONCE // logits_RV.shape[-1])
    return [slice(start, start + at_once) for start in range(0, len(logits_RV), at_once)]


def _lines(logits_RV: Tensor, token_R: Tensor, others_RK: Tensor | None) -> Tensor:
    """Ids, bits of values and the rank of the token, for it and the others."""
    logprobs_RV = torch.log_softmax(logits_RV, dim=-1)
    token_R1 = token_R.to(torch.int64).unsqueeze(1)
    # A comparison into floats is several times quicker than into bools; the count is exact below 2**24.
    is_larger_RV = torch.gt(logits_RV, logits_RV.gather(1, token_R1), out=torch.empty_like(logits_RV))
    rank_R1 = is_larger_RV.sum(-1, keepdim=True).to(torch.int32) + 1
    ids_RK = token_R1 if others_RK is None else torch.cat((token_R1, others_RK), dim=1)
    values_RK = logprobs_RV.gather(1, ids_RK).view(torch.int32)
    return torch.cat((ids_RK.to(torch.int32), values_RK, rank_R1), dim=1)


def prompt_logprobs(logits_TV: Tensor, next_token_ids: Tensor, top: int) -> PendingLogprobs:
    """For each position of a prompt: the token that follows it, then the `top` best ones (-1: all)."""
    return token_logprobs(logits_TV, next_token_ids, [top] * len(logits_TV))
