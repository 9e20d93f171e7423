"""What the rows of one step have said so far, read from the worker's token table.

Shape letters here and in the whole room: S rows of the step, V vocabulary, N entries of a flat list.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from octavo.worker.upload import upload


class TokenTable(Protocol):
    """The worker's TokenRows, as far as this room needs it. Counts live on the host, tokens on the device."""

    @property
    def tokens(self) -> Tensor:
        """int32 [num_rows, width]: known tokens of each row from the left; the rest is anything."""

    @property
    def num_known(self) -> NDArray[np.int32]:
        """Known tokens by row."""

    @property
    def num_prompt(self) -> NDArray[np.int32]:
        """How many of them are the prompt."""


class History:
    """The token table seen through the rows of one step; `place` means an index into those rows.

    What is on the device is sent there when it is first asked for: most steps need none of it.
    """

    def __init__(self, token_rows: TokenTable, rows: list[int], device: torch.device) -> None:
        self.table = token_rows.tokens
        self.rows = rows
        self.device = device
        self.lengths: NDArray[np.int32] = token_rows.num_known[rows]
        self.prompt_lengths: NDArray[np.int32] = token_rows.num_prompt[rows]

    @property
    def rows_S(self) -> Tensor:
        return self._sent_3S[0]

    @property
    def lengths_S(self) -> Tensor:
        """Which is also the position of each row's next token."""
        return self._sent_3S[1]

    @property
    def prompt_lengths_S(self) -> Tensor:
        return self._sent_3S[2]

    @property
    def num_outputs_S(self) -> Tensor:
        return self.lengths_S - self.prompt_lengths_S

    @cached_property
    def _sent_3S(self) -> Tensor:
        sent = np.array((self.rows, self.lengths, self.prompt_lengths), dtype=np.int64)
        return upload(sent, torch.int64, self.device)

    def output_token_ids(self, place: int, most: int | None = None) -> list[int]:
        """The output of one row on the host, or its last `most` tokens. Waits for the device."""
        start, end = self.prompt_lengths[place], self.lengths[place]
        start = start if most is None else max(start, end - most)
        output: list[int] = self.table[self.rows[place], start:end].tolist()
        return output

    def is_output_token(self, place_N: Tensor, back_N: Tensor, token_N: Tensor) -> Tensor:
        """bool [N]: whether the token `back` positions before the next one is this token of the output."""
        position_N = self.lengths_S[place_N] - back_N
        seen_N = self.table[self.rows_S[place_N], position_N.clamp(min=0)]
        return (seen_N == token_N) & (position_N >= self.prompt_lengths_S[place_N])
