"""Sampling settings of every row: numbers on the device, feature sets on the host.

A row's settings are written once, when its request enters. A step reads them by row. The sets say
which rows use a feature at all, so that a feature nobody uses costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.ops.sampling.settings import (
    COLUMNS,
    FILTERED,
    GREEDY,
    NO_TOP_K,
    UNFILTERED,
    Draws,
    settings_line,
)
from octavo.worker.sampling.history import History
from octavo.worker.upload import Values, upload


class SamplingRows:
    """Settings by row. A row number may be reused after remove(); nothing of the old request stays."""

    def __init__(self, *, num_rows: int, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._settings = torch.zeros(num_rows, COLUMNS, dtype=torch.int64, device=device)
        self._penalties = torch.zeros(num_rows, 3, dtype=torch.float32, device=device)
        self._kinds = [GREEDY] * num_rows
        self.random: set[int] = set()
        """Rows that draw; the others are greedy."""
        self.penalised: set[int] = set()
        self.num_logprobs: dict[int, int] = {}
        """Best tokens asked for, by row; -1 is the whole vocabulary."""

    def add(self, row: int, params: SamplingParams, random_key: int) -> None:
        self.remove(row)
        has_top_k = 0 < params.top_k < self._vocab_size
        if not params.is_greedy:
            self.random.add(row)
            is_filtered = has_top_k or params.top_p < 1.0 or params.min_p > 0.0
            self._kinds[row] = FILTERED if is_filtered else UNFILTERED
        line = settings_line(
            kind=self._kinds[row],
            temperature=params.temperature,
            top_k=params.top_k if has_top_k else NO_TOP_K,
            top_p=params.top_p,
            min_p=params.min_p,
            random_key=random_key,
        )
        self._settings[row] = upload(line, torch.int64, self._device)
        penalties = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty)
        if penalties != (1.0, 0.0, 0.0):
            self.penalised.add(row)
            self._penalties[row] = upload(penalties, torch.float32, self._device)
        if params.logprobs is not None:
            self.num_logprobs[row] = params.logprobs

    def remove(self, row: int) -> None:
        self._kinds[row] = GREEDY
        self.random.discard(row)
        self.penalised.discard(row)
        self.num_logprobs.pop(row, None)

    def draws(self, history: History) -> Draws | None:
        """What the rows of a step choose by; None where all are greedy."""
        if self.random.isdisjoint(history.rows):
            return None
        kinds = [self._kinds[row] for row in history.rows]
        return Draws.of(kinds, self._settings, history.rows_S, history.lengths_S)

    def penalties(self, rows_R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Repetition, presence and frequency penalty as float32 columns [R, 1]."""
        repetition_R1, presence_R1, frequency_R1 = self._penalties[rows_R].unsqueeze(-1).unbind(1)
        return repetition_R1, presence_R1, frequency_R1


class RowTables:
    """Lists of entries that belong to rows; entries are columns of equal length, a tensor each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._columns: dict[int, tuple[Tensor, ...]] = {}

    def put(self, row: int, *columns: Values) -> None:
        """Columns of integers become int64, columns of floats float32."""
        self._columns[row] = tuple(
            upload(column, torch.float32 if isinstance(column[0], float) else torch.int64, self._device)
            for column in columns
        )

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
        counts = [len(columns[0]) for columns in entries]
        place_P, count_P = upload([places, counts], torch.int64, self._device)
        place_N = place_P.repeat_interleave(count_P, output_size=sum(counts))
        return place_N, *(torch.cat(column) for column in zip(*entries, strict=True))
