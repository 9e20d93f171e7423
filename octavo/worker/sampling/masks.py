"""Changes of logits by token id: logit_bias, and the masks allowed_token_ids and min_tokens.

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

NEVER = float("-inf")


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
            logits_SV.masked_fill_(masked_S.unsqueeze(1), NEVER)
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
            mask_where(logits_SV, place_N, token_N, history.num_outputs_S[place_N] < minimum_N)


def mask_where(logits_SV: Tensor, place_N: Tensor, token_N: Tensor, is_masked_N: Tensor) -> None:
    """Mask the entries that are marked. Adding 0 or -inf lets the same entry be named more than once."""
    penalty_N = torch.zeros_like(logits_SV[place_N, token_N]).masked_fill_(is_masked_N, NEVER)
    logits_SV.index_put_((place_N, token_N), penalty_N, accumulate=True)
