"""Placeholders: what stands in the place of a sampler where rows answer with numbers instead of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.worker.sampling.history import TokenTable
from octavo.worker.sampling.pending import PendingSample


class RowSampler(Protocol):
    """What the runner asks for a token of each row."""

    def add_row(
        self,
        row: int,
        params: SamplingParams,
        random_key: int,
        eos_token_ids: list[int],
        token_ids: list[int],
        num_prompt_tokens: int,
    ) -> None: ...

    def remove_row(self, row: int) -> None: ...

    def sample(self, logits_SV: Tensor, rows: Sequence[int], token_rows: TokenTable) -> PendingSample: ...

    def warm_up(self, dtype: torch.dtype, token_rows: TokenTable) -> None: ...


class Placeholders:
    """A RowSampler that chooses token 0 for everybody, whatever the logits."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def add_row(
        self,
        row: int,
        params: SamplingParams,
        random_key: int,
        eos_token_ids: list[int],
        token_ids: list[int],
        num_prompt_tokens: int,
    ) -> None:
        """Nothing is kept of it."""

    def remove_row(self, row: int) -> None:
        """Nothing was kept."""

    def sample(self, logits_SV: Tensor, rows: Sequence[int], token_rows: TokenTable) -> PendingSample:  # noqa: ARG002
        rows = list(rows)
        return PendingSample(torch.zeros(2, len(rows), dtype=torch.int32, device=self._device), rows)

    def warm_up(self, dtype: torch.dtype, token_rows: TokenTable) -> None:
        """There is nothing to compile."""
