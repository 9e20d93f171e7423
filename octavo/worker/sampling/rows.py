"""Sampling settings of every row: numbers on the device, feature sets on the host.

A row's settings are written once, when its request enters. A step gathers them by row. The sets say
which rows use a feature at all, so that a feature nobody uses costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.worker.sampling.filters import NO_TOP_K, Filters
from octavo.worker.sampling.random import ROUNDS, round_keys

_TEMPERATURE, _TOP_P, _MIN_P, _REPETITION, _PRESENCE, _FREQUENCY = range(6)


class SamplingRows:
    """Settings by row. A row number may be reused after remove(); nothing of the old request stays."""

    def __init__(self, *, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._numbers = torch.zeros(num_rows, 6, dtype=torch.float64, device=device)
        self._integers = torch.zeros(num_rows, 1 + 2 * ROUNDS, dtype=torch.int64, device=device)
        self.random: set[int] = set()
        """Rows that draw; the others are greedy."""
        self.filtered: set[int] = set()
        """Rows among them with min_p, top_k or top_p."""
        self.penalised: set[int] = set()
        self.num_logprobs: dict[int, int] = {}
        """Best tokens asked for, by row; -1 is the whole vocabulary."""

    def add(self, row: int, params: SamplingParams, random_key: int) -> None:
        self.remove(row)
        has_top_k = 0 < params.top_k < self._vocab_size
        self._numbers[row] = torch.tensor(
            [
                params.temperature,
                params.top_p,
                params.min_p,
                params.repetition_penalty,
                params.presence_penalty,
                params.frequency_penalty,
            ],
            dtype=torch.float64,
        )
        self._integers[row] = torch.tensor([params.top_k if has_top_k else NO_TOP_K, *round_keys(random_key)])
        if not params.is_greedy:
            self.random.add(row)
            if has_top_k or params.top_p < 1.0 or params.min_p > 0.0:
                self.filtered.add(row)
        if params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty:
            self.penalised.add(row)
        if params.logprobs is not None:
            self.num_logprobs[row] = params.logprobs

    def remove(self, row: int) -> None:
        self.random.discard(row)
        self.filtered.discard(row)
        self.penalised.discard(row)
        self.num_logprobs.pop(row, None)

    def filters(self, rows_R: Tensor) -> Filters:
        numbers_R6 = self._numbers[rows_R]
        return Filters(
            temperature_R=numbers_R6[:, _TEMPERATURE],
            top_k_R=self._integers[rows_R, 0],
            top_p_R=numbers_R6[:, _TOP_P],
            min_p_R=numbers_R6[:, _MIN_P],
        )

    def penalties(self, rows_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Repetition, presence and frequency penalty as float32 columns [R, 1]."""
        numbers_R6 = self._numbers[rows_R].float()
        return (
            numbers_R6[:, _REPETITION].unsqueeze(1),
            numbers_R6[:, _PRESENCE].unsqueeze(1),
            numbers_R6[:, _FREQUENCY].unsqueeze(1),
        )

    def round_keys(self, rows_R: Tensor) -> Tensor:
        return self._integers[rows_R, 1:]


class RowTables:
    """Lists of entries that belong to rows; entries are columns of equal length, a tensor each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._columns: dict[int, tuple[Tensor, ...]] = {}

    def put(self, row: int, *columns: Tensor) -> None:
        self._columns[row] = tuple(column.to(self._device) for column in columns)

    def drop(self, row: int) -> None:
        self._columns.pop(row, None)

    def used_by(self, rows: Sequence[int]) -> bool:
        return bool(self._columns) and any(row in self._columns for row in rows)

    def gather(self, rows: Sequence[int]) -> tuple[Tensor, ...] | None:
        """All entries of these rows in order: the place in `rows` each belongs to, then the columns."""
        if not self._columns:
            return None
        places = [place for place, row in enumerate(rows) if row in self._columns]
        if not places:
            return None
        entries = [self._columns[rows[place]] for place in places]
        counts = torch.tensor([len(columns[0]) for columns in entries], device=self._device)
        place_N = torch.tensor(places, device=self._device).repeat_interleave(counts)
        return place_N, *(torch.cat(column) for column in zip(*entries, strict=True))
