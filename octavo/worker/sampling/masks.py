"""Changes of logits by token id: logit_bias, and the masks allowed_token_ids, bad_words and min_tokens.

A mask sets logits to -inf. Each row's lists are put on the device once; a step joins the lists of
its rows into flat (place, token, value) tensors and applies them in one go.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.worker.sampling.history import History
from octavo.worker.sampling.rows import RowTables

_NEVER = float("-inf")


class LogitBias:
    """params.logit_bias, added to the logits."""

    def __init__(self, device: torch.device) -> None:
        self.tables = RowTables(device)

    def add_row(self, row: int, params: SamplingParams) -> None:
        if params.logit_bias:
            biases = [float(bias) for bias in params.logit_bias.values()]
            self.tables.put(row, list(params.logit_bias), biases)

    def apply(self, logits_SV: Tensor, rows: Sequence[int]) -> None:
        found = self.tables.gather(rows)
        if found is not None:
            place_N, token_N, bias_N = found
            logits_SV[place_N, token_N] += bias_N


class AllowedTokens:
    """params.allowed_token_ids: all others are masked."""

    def __init__(self, device: torch.device) -> None:
        self.tables = RowTables(device)

    def add_row(self, row: int, params: SamplingParams) -> None:
        if params.allowed_token_ids is not None:
            self.tables.put(row, params.allowed_token_ids)

    def apply(self, logits_SV: Tensor, rows: Sequence[int]) -> None:
        found = self.tables.gather(rows)
        if found is not None:
            place_N, token_N = found
            kept_N = logits_SV[place_N, token_N]
            masked_S = torch.zeros(len(rows), dtype=torch.bool, device=logits_SV.device)
            masked_S.index_fill_(0, place_N, True)
            logits_SV.masked_fill_(masked_S.unsqueeze(1), _NEVER)
            logits_SV[place_N, token_N] = kept_N


class MinTokens:
    """params.min_tokens: what would end the answer is masked until the output is that long."""

    def __init__(self, device: torch.device) -> None:
        self.tables = RowTables(device)

    def add_row(self, row: int, params: SamplingParams, eos_token_ids: list[int]) -> None:
        ends = sorted({*eos_token_ids, *(params.stop_token_ids or [])})
        if params.min_tokens > 0 and ends:
            self.tables.put(row, ends, [params.min_tokens] * len(ends))

    def apply(self, logits_SV: Tensor, rows: Sequence[int], history: History) -> None:
        found = self.tables.gather(rows)
        if found is not None:
            place_N, token_N, minimum_N = found
            _mask_where(logits_SV, place_N, token_N, history.num_outputs_S[place_N] < minimum_N)


class BadWords:
    """params.bad_words_token_ids: a sequence's last token is masked when the output ends with the rest.

    Two lists per row: the last token of each sequence, and one link for each earlier token, which says
    how far before the next position that token would have to stand.
    """

    def __init__(self, device: torch.device) -> None:
        self.tables = RowTables(device)
        self._links = RowTables(device)

    def add_row(self, row: int, params: SamplingParams) -> None:
        words = [word for word in params.bad_words_token_ids or [] if word]
        if not words:
            return
        self.tables.put(row, [word[-1] for word in words])
        links = [
            (number, len(word) - 1 - i, token)
            for number, word in enumerate(words)
            for i, token in enumerate(word[:-1])
        ]
        if links:
            self._links.put(row, *zip(*links, strict=True))

    def remove_row(self, row: int) -> None:
        self.tables.drop(row)
        self._links.drop(row)

    def apply(self, logits_SV: Tensor, rows: Sequence[int], history: History) -> None:
        found = self.tables.gather(rows)
        if found is None:
            return
        place_N, last_N = found
        num_misses_N = torch.zeros_like(place_N)
        links = self._links.gather(rows)
        if links is not None:
            place_M, number_M, back_M, token_M = links
            is_miss_M = ~history.is_output_token(place_M, back_M, token_M)
            first_M = torch.searchsorted(place_N, place_M)  # where this row's sequences begin
            num_misses_N.index_add_(0, first_M + number_M, is_miss_M.to(torch.int64))
        _mask_where(logits_SV, place_N, last_N, num_misses_N == 0)


def _mask_where(logits_SV: Tensor, place_N: Tensor, token_N: Tensor, is_masked_N: Tensor) -> None:
    """Mask the entries that are marked. Adding 0 or -inf lets the same entry be named more than once."""
    penalty_N = torch.zeros_like(logits_SV[place_N, token_N]).masked_fill_(is_masked_N, _NEVER)
    logits_SV.index_put_((place_N, token_N), penalty_N, accumulate=True)
