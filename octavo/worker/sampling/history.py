"""What the rows of one step have said so far, read from the worker's token table.

Shape letters here and in the whole room: S rows of the step, V vocabulary, N entries of a flat list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class TokenTable(Protocol):
    """The worker's TokenRows, as far as this room needs it."""

    @property
    def tokens(self) -> Tensor:
        """int64 [num_rows, width]: known tokens of each row from the left; the rest is anything."""

    @property
    def lengths(self) -> Tensor:
        """int64 [num_rows]: known tokens."""

    @property
    def prompt_lengths(self) -> Tensor:
        """int64 [num_rows]: how many of them are the prompt."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The token table seen through the rows of one step; `place` means an index into those rows."""

    table: Tensor
    rows_S: Tensor
    lengths_S: Tensor
    prompt_lengths_S: Tensor

    @staticmethod
    def of(token_rows: TokenTable, rows: Sequence[int], device: torch.device) -> History:
        rows_S = torch.tensor(rows, dtype=torch.int64, device=device)
        return History(
            table=token_rows.tokens,
            rows_S=rows_S,
            lengths_S=token_rows.lengths[rows_S],
            prompt_lengths_S=token_rows.prompt_lengths[rows_S],
        )

    @property
    def num_outputs_S(self) -> Tensor:
        return self.lengths_S - self.prompt_lengths_S

    def output_token_ids(self, place: int) -> list[int]:
        """The output of one row on the host, for user code."""
        start, end = int(self.prompt_lengths_S[place]), int(self.lengths_S[place])
        output: list[int] = self.table[self.rows_S[place], start:end].tolist()
        return output

    def is_output_token(self, place_N: Tensor, back_N: Tensor, token_N: Tensor) -> Tensor:
        """bool [N]: whether the token `back` positions before the next one is this token of the output."""
        position_N = self.lengths_S[place_N] - back_N
        seen_N = self.table[self.rows_S[place_N], position_N.clamp(min=0)]
        return (seen_N == token_N) & (position_N >= self.prompt_lengths_S[place_N])
