"""params.bad_words_token_ids: a sequence's last token is masked when the output ends with the rest.

On a GPU all sequences of all rows are compared with the table of tokens there, as nobody may wait for what a
row has said. On a CPU what it has said is at hand, and its end is looked up: a step costs what a row has of
different lengths, not of tokens, so that one long list does not slow everybody's steps down.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.worker.sampling.history import History
from octavo.worker.sampling.masks import NEVER, mask_where
from octavo.worker.sampling.rows import RowTables

TokenIds = list[int]


class BadWords(Protocol):
    """Of all rows of a worker."""

    def add_row(self, row: int, params: SamplingParams) -> None: ...

    def remove_row(self, row: int) -> None:
        """Idempotent."""

    def used_by(self, rows: Sequence[int]) -> bool:
        """Whether any of these rows has some."""

    def apply(self, logits_SV: Tensor, rows: Sequence[int], history: History) -> None:
        """Mask the logits in place."""


def bad_words_on(device: torch.device) -> BadWords:
    return FoundBadWords() if device.type == "cpu" else ComparedBadWords(device)


class ComparedBadWords:
    """By comparing all sequences.

    Two lists per row: the last token of each sequence, and one link for each earlier token, which says
    how far before the next position that token would have to stand.
    """

    def __init__(self, device: torch.device) -> None:
        self._lasts = RowTables(device)
        self._links = RowTables(device)
        self._sources: dict[int, list[TokenIds]] = {}

    def add_row(self, row: int, params: SamplingParams) -> None:
        source = params.bad_words_token_ids or []
        words = [word for word in source if word]
        if not words:
            return
        twin = next((other for other, given in self._sources.items() if given is source), None)
        self._sources[row] = source
        if twin is not None:  # Another sample of the same request.
            self._lasts.copy(twin, row)
            self._links.copy(twin, row)
            return
        self._lasts.put(row, [word[-1] for word in words])
        links = [
            (number, len(word) - 1 - i, token)
            for number, word in enumerate(words)
            for i, token in enumerate(word[:-1])
        ]
        if links:
            self._links.put(row, *zip(*links, strict=True))

    def remove_row(self, row: int) -> None:
        self._sources.pop(row, None)
        self._lasts.drop(row)
        self._links.drop(row)

    def used_by(self, rows: Sequence[int]) -> bool:
        return self._lasts.used_by(rows)

    def apply(self, logits_SV: Tensor, rows: Sequence[int], history: History) -> None:
        found = self._lasts.gather(rows)
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
        mask_where(logits_SV, place_N, last_N, num_misses_N == 0)


class FoundBadWords:
    """By what the output ends with."""

    def __init__(self) -> None:
        self._endings: dict[int, Endings] = {}

    def add_row(self, row: int, params: SamplingParams) -> None:
        source = params.bad_words_token_ids or []
        if not any(source):
            return
        twins = (endings for endings in self._endings.values() if endings.source is source)
        self._endings[row] = next(twins, None) or Endings(source)

    def remove_row(self, row: int) -> None:
        self._endings.pop(row, None)

    def used_by(self, rows: Sequence[int]) -> bool:
        return bool(self._endings) and any(row in self._endings for row in rows)

    def apply(self, logits_SV: Tensor, rows: Sequence[int], history: History) -> None:
        for place, row in enumerate(rows):
            endings = self._endings.get(row)
            if endings is not None:
                logits_V = logits_SV[place]
                logits_V.index_fill_(0, endings.always_N, NEVER)
                found = endings.after(history.output_token_ids(place, endings.longest))
                if found:
                    logits_V[found] = NEVER


class Endings:
    """Last tokens of sequences, by the tokens before them."""

    def __init__(self, source: list[TokenIds]) -> None:
        """source: is kept, to know another row's list by."""
        self.source = source
        self.always_N = torch.tensor([word[0] for word in source if len(word) == 1], dtype=torch.int64)
        """Those with nothing before them."""
        self._after: dict[int, dict[tuple[int, ...], TokenIds]] = {}
        """By how many stand before them, and which."""
        for word in source:
            if len(word) > 1:
                *before, last = word
                self._after.setdefault(len(before), {}).setdefault(tuple(before), []).append(last)
        self.longest = max(self._after, default=0)

    def after(self, output: TokenIds) -> TokenIds:
        """Last tokens of the sequences that the output ends with but for these."""
        found: TokenIds = []
        for length, lasts in self._after.items():
            if length <= len(output):
                found += lasts.get(tuple(output[-length:]), ())
        return found
