"""DRY ("don't repeat yourself"): what would continue a repetition of earlier text is made unlikely.

As llama.cpp defines it (src/llama-sampler.cpp, from p-e-w's text-generation-webui 5677 and koboldcpp 982).
The end of the known tokens, prompt included, is compared with all earlier places of the window. Where
the n tokens up to a place equal the last n, the token that followed there would make the repetition
n + 1 long, and for n >= dry_allowed_length it loses

    dry_multiplier * dry_base ** (n - dry_allowed_length)

once, for the largest such n. n counts back to the nearest sequence breaker; tokens that hold a whole
breaker lose nothing. Read from the token table at each step; the work grows with the window. No row
depends on another: comparisons are of whole numbers, and penalties come from a table made on the host.

S rows of the step, R rows with DRY, W tokens of the window, newest first; N steps back; V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.messages.params import SamplingParams
from octavo.messages.samplers import DryBreakers
from octavo.worker.sampling.history import History
from octavo.worker.sampling.rows import RowTables
from octavo.worker.upload import upload

MOST_COUNTED = 256
"""A longer repetition counts as one of so many tokens: what continues it is out of reach already."""
_FIRST_STRETCH = 32
"""Few repetitions are longer: the rest is looked at where it may matter."""
_LARGEST_LOG = 88.7228391
"""Of float32, as in llama.cpp: penalties stop growing where they would be infinite."""
_COMPARED_AT_ONCE = 1 << 23
"""Tokens, times steps back: a few bytes each."""
_NOTHING, _BEFORE = -1, -2
"""Stand for tokens past the window's end, and for those that are not there yet."""


@dataclass(frozen=True)
class _Row:
    """What one row asks for, on the host."""

    last_n: int
    tails: list[list[int]]


class Dry:
    """Settings by row, and their use in a step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._rows: dict[int, _Row] = {}
        self._penalties: dict[int, Tensor] = {}
        self._heads = RowTables(device)
        """Head tokens, ascending, and their tails as bits."""

    def add_row(self, row: int, params: SamplingParams) -> None:
        if params.dry_multiplier == 0.0 or params.dry_penalty_last_n == 0:
            return
        breakers = params.dry_breakers or DryBreakers([], [], [])
        last_n = params.dry_penalty_last_n
        self._rows[row] = _Row(last_n=2**31 if last_n == -1 else last_n, tails=breakers.tails)
        self._penalties[row] = upload(penalty_table(params), torch.float32, self._device)
        heads = sorted(zip(breakers.head_ids, breakers.head_tails, strict=True))
        if heads:
            self._heads.put(row, *zip(*heads, strict=True))

    def remove_row(self, row: int) -> None:
        self._rows.pop(row, None)
        self._penalties.pop(row, None)
        self._heads.drop(row)

    def used_by(self, rows: list[int]) -> bool:
        return bool(self._rows) and any(row in self._rows for row in rows)

    def apply(self, logits_SV: Tensor, history: History) -> None:
        """Change the logits (float32) of rows with DRY in place."""
        places = [place for place, row in enumerate(history.rows) if row in self._rows]
        while places:
            windows = [self._window(place, history) for place in places]
            count = max(1, _COMPARED_AT_ONCE // (max(windows) * MOST_COUNTED))
            self._apply(logits_SV, places[:count], windows[:count], history)
            places = places[count:]

    def _window(self, place: int, history: History) -> int:
        return min(int(history.lengths[place]), self._rows[history.rows[place]].last_n)

    def _apply(self, logits_SV: Tensor, places: list[int], windows: list[int], history: History) -> None:
        place_R1 = upload(places, torch.int64, self._device).unsqueeze(1)
        recent_RW = _newest_first(place_R1, windows, history)
        limit_R1, is_breaker_RW = self._breakers([history.rows[place] for place in places], recent_RW)
        count_RW = repeated(recent_RW).minimum(limit_R1)
        penalty_RN = self._penalty_rows([history.rows[place] for place in places])
        loss_RW = penalty_RN.gather(1, count_RW.clamp_(max=penalty_RN.shape[1] - 1))
        # What follows a place is the token before it, newest first. The newest has none.
        next_RW = recent_RW[:, :-1]
        loss_RW = loss_RW[:, 1:].masked_fill(is_breaker_RW[:, :-1] | (recent_RW[:, 1:] == _NOTHING), 0.0)
        next_RW = next_RW.clamp(min=0)
        loss_RV = logits_SV.new_zeros(len(places), logits_SV.shape[1])
        loss_RV.scatter_reduce_(1, next_RW, loss_RW, "amax")
        # A token that stands there twice is written twice with the same value.
        logits_SV[place_R1, next_RW] = logits_SV[place_R1, next_RW] - loss_RV.gather(1, next_RW)

    def _penalty_rows(self, rows: list[int]) -> Tensor:
        """Penalty by length of repetition; each row's last one goes on for ever."""
        tables = [self._penalties[row] for row in rows]
        width = max(len(table) for table in tables)
        return torch.stack([torch.cat((table, table[-1:].expand(width - len(table)))) for table in tables])

    def _breakers(self, rows: list[int], recent_RW: Tensor) -> tuple[Tensor, Tensor]:
        """How many tokens back the nearest breaker is, int64 [R, 1], and which tokens hold a whole one."""
        found = self._heads.gather(rows)
        width = recent_RW.shape[1]
        if found is None:
            limit_R1 = torch.full_like(recent_RW[:, :1], width)
            return limit_R1, torch.zeros_like(recent_RW, dtype=torch.bool)
        place_H, head_H, tails_H = found
        row_R1 = torch.arange(len(rows), device=self._device).unsqueeze(1)
        key_H = place_H * 2**32 + head_H
        key_RW = row_R1 * 2**32 + recent_RW.clamp(min=0)
        index_RW = torch.searchsorted(key_H, key_RW).clamp_(max=len(key_H) - 1)
        is_head_RW = (key_H[index_RW] == key_RW) & (recent_RW >= 0)
        bits_RW = tails_H[index_RW].masked_fill_(~is_head_RW, 0)
        is_breaker_RW = (bits_RW & 1) > 0
        length_RW = is_breaker_RW.to(torch.int64) - 1
        tails = [self._rows[row].tails for row in rows]
        for number in range(1, max(map(len, tails))):
            tail_RT = _padded(
                [of_row[number] if number < len(of_row) else [] for of_row in tails], self._device
            )
            is_met_RW = ((bits_RW >> number) & 1 > 0) & _follows(recent_RW, tail_RT)
            count_R1 = (tail_RT != _NOTHING).sum(-1, keepdim=True)
            length_RW = torch.where(is_met_RW, length_RW.maximum(count_R1), length_RW)
        back_W = torch.arange(width, device=self._device)
        back_RW = back_W.expand_as(length_RW).masked_fill(length_RW < 0, width)
        nearest_R1 = back_RW.amin(-1, keepdim=True)
        inside_R1 = length_RW.gather(1, nearest_R1.clamp(max=width - 1)).clamp_(min=0)
        return (nearest_R1 - inside_R1).masked_fill_(nearest_R1 == width, width), is_breaker_RW


def penalty_table(params: SamplingParams) -> list[float]:
    """What is lost by length of repetition, up to the length from which on it stays the same."""
    base, allowed = params.dry_base, params.dry_allowed_length
    growing = 0 if base <= 1.000001 else int(_LARGEST_LOG / math.log(base))
    longest = min(allowed + growing, MOST_COUNTED)
    return [
        params.dry_multiplier * base ** (length - allowed) if length >= allowed else 0.0
        for length in range(longest + 1)
    ]


def repeated(recent_RW: Tensor) -> Tensor:
    """How many tokens up to each place equal the last ones, int64 [R, W], counted to MOST_COUNTED.

    The first place, the end itself, says nothing of use.
    """
    padded_RP = torch.nn.functional.pad(recent_RW, (0, MOST_COUNTED), value=_NOTHING)
    width = recent_RW.shape[1]
    count_RW = _equal(padded_RP, width, 0, _FIRST_STRETCH)
    is_long_RW = count_RW == _FIRST_STRETCH
    # Only a CPU may look: a GPU would have to be waited for.
    if recent_RW.device.type == "cpu" and not bool(is_long_RW[:, 1:].any()):
        return count_RW
    rest_RW = _equal(padded_RP, width, _FIRST_STRETCH, MOST_COUNTED - _FIRST_STRETCH)
    return torch.where(is_long_RW, count_RW + rest_RW, count_RW)


def _equal(padded_RP: Tensor, width: int, start: int, count: int) -> Tensor:
    """How many of `count` tokens, from `start` steps back on, equal those at the end before one does not."""
    views_RWN = padded_RP[:, start : start + width + count - 1].unfold(1, count, 1)
    end_R1N = padded_RP[:, None, start : start + count]
    step_N = torch.arange(count, dtype=torch.int16, device=padded_RP.device)
    differs_RWN = views_RWN != end_R1N
    return step_N.expand_as(differs_RWN).masked_fill(~differs_RWN, count).amin(-1).to(torch.int64)


def _newest_first(place_R1: Tensor, windows: list[int], history: History) -> Tensor:
    """The window's tokens, int64 [R, W], filled up with _NOTHING."""
    width = max(windows)
    window_R1 = upload(windows, torch.int64, place_R1.device).unsqueeze(1)
    back_W = torch.arange(width, device=place_R1.device)
    position_RW = (history.lengths_S[place_R1] - 1 - back_W).clamp_(min=0)
    tokens_RW = history.table[history.rows_S[place_R1], position_RW].to(torch.int64)
    return tokens_RW.masked_fill_(back_W >= window_R1, _NOTHING)


def _padded(tails: list[list[int]], device: torch.device) -> Tensor:
    width = max(1, *(len(tail) for tail in tails))
    return upload([[*tail, *[_NOTHING] * (width - len(tail))] for tail in tails], torch.int64, device)


def _follows(recent_RW: Tensor, tail_RT: Tensor) -> Tensor:
    """Whether the tail's tokens came after each place, bool [R, W]. A row without this tail: see its bits."""
    count = tail_RT.shape[1]
    padded_RP = torch.nn.functional.pad(recent_RW, (count, 0), value=_BEFORE)
    later_RWT = padded_RP[:, : recent_RW.shape[1] + count - 1].unfold(1, count, 1).flip(-1)
    tail_R1T = tail_RT.unsqueeze(1)
    return ((later_RWT == tail_R1T) | (tail_R1T == _NOTHING)).all(-1)
