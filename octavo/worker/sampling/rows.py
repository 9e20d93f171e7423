"""Sampling settings of every row: numbers on the device, feature sets on the host.

A row's settings are written once, when its request enters. A step reads them by row. The sets say
which rows use a feature at all, so that a feature nobody uses costs nothing.
"""

from __future__ import annotations

import math
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
        self._penalties = torch.zeros(num_rows, 4, dtype=torch.float32, device=device)
        self._shapes = torch.zeros(num_rows, 4, dtype=torch.float64, device=device)
        self._kinds = [GREEDY] * num_rows
        self.random: set[int] = set()
        """Rows that draw; the others are greedy."""
        self.penalised: set[int] = set()
        self.windowed: set[int] = set()
        """Penalised rows whose repetition penalty looks only so far back."""
        self.shaped: set[int] = set()
        """Rows with top_n_sigma, typical_p or XTC: their filters run in shape.py, all of them."""
        self.num_logprobs: dict[int, int] = {}
        """Best tokens asked for, by row; -1 is the whole vocabulary."""
        self.logprob_ids: dict[int, Tensor] = {}
        """Tokens asked for instead, by row, int64 on the device."""

    def add(self, row: int, params: SamplingParams, random_key: int) -> None:
        self.remove(row)
        has_top_k = 0 < params.top_k < self._vocab_size
        if not params.is_greedy:
            self.random.add(row)
            is_filtered = has_top_k or params.top_p < 1.0 or params.min_p > 0.0
            if _is_shaped(params):
                self._add_shape(row, params)
                is_filtered = False
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
        self._add_penalties(row, params)
        if params.logprob_token_ids:
            self.logprob_ids[row] = upload(params.logprob_token_ids, torch.int64, self._device)
        elif params.logprobs is not None:
            self.num_logprobs[row] = params.logprobs

    def _add_penalties(self, row: int, params: SamplingParams) -> None:
        repetition = 1.0 if params.repeat_last_n == 0 else params.repetition_penalty
        penalties = (repetition, params.presence_penalty, params.frequency_penalty)
        if penalties == (1.0, 0.0, 0.0):
            return
        self.penalised.add(row)
        window = float(params.repeat_last_n) if params.repeat_last_n > 0 else math.inf
        if repetition != 1.0 and window != math.inf:
            self.windowed.add(row)
        self._penalties[row] = upload((*penalties, window), torch.float32, self._device)

    def _add_shape(self, row: int, params: SamplingParams) -> None:
        self.shaped.add(row)
        numbers = (params.top_n_sigma, params.typical_p, params.xtc_probability, params.xtc_threshold)
        self._shapes[row] = upload(numbers, torch.float64, self._device)

    def remove(self, row: int) -> None:
        self._kinds[row] = GREEDY
        self.random.discard(row)
        self.penalised.discard(row)
        self.windowed.discard(row)
        self.shaped.discard(row)
        self.num_logprobs.pop(row, None)
        self.logprob_ids.pop(row, None)

    def draws(self, history: History) -> Draws | None:
        """What the rows of a step choose by; None where all are greedy."""
        if self.random.isdisjoint(history.rows):
            return None
        kinds = [self._kinds[row] for row in history.rows]
        return Draws.of(kinds, self._settings, history.rows_S, history.lengths_S)

    def penalties(self, rows_R: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Repetition, presence and frequency penalty and the first one's window, float32 [R, 1] each."""
        repetition_R1, presence_R1, frequency_R1, window_R1 = self._penalties[rows_R].unsqueeze(-1).unbind(1)
        return repetition_R1, presence_R1, frequency_R1, window_R1

    def shapes(self, rows_R: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """top_n_sigma, typical_p, xtc_probability and xtc_threshold as float64 columns [R, 1]."""
        sigmas_R1, typical_R1, probability_R1, threshold_R1 = self._shapes[rows_R].unsqueeze(-1).unbind(1)
        return sigmas_R1, typical_R1, probability_R1, threshold_R1

    def lines(self, rows_R: Tensor) -> Tensor:
        """The settings table's lines of these rows."""
        return self._settings[rows_R]


def _is_shaped(params: SamplingParams) -> bool:
    # No two tokens can both have more than half: above that XTC never drops any.
    has_xtc = params.xtc_probability > 0.0 and params.xtc_threshold <= 0.5
    return params.top_n_sigma > 0.0 or params.typical_p < 1.0 or has_xtc


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

    def copy(self, row: int, to: int) -> None:
        """The same entries, which stay where they are, for another row."""
        if row in self._columns:
            self._columns[to] = self._columns[row]

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
