"""How rows choose: one table of 64-bit words, a line per row, which kernels read by row number.

Floats stand in it bit by bit. A line is written once, when a request enters, in one small transfer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from octavo.ops.sampling.random import ROUNDS, round_keys

KIND, TOP_K, TEMPERATURE, TOP_P, MIN_P, KEYS = range(6)
"""Columns. The keys of all random rounds follow from KEYS on; the first two are the row's own key."""
COLUMNS = KEYS + 2 * ROUNDS

GREEDY, UNFILTERED, FILTERED = range(3)
"""Kinds of rows: the largest logit, a draw from all tokens, a draw from what min_p, top_k and top_p leave."""

NO_TOP_K = 2**31
"""top_k of rows that have none: more than any vocabulary."""


def settings_line(
    *, kind: int, temperature: float, top_k: int, top_p: float, min_p: float, random_key: int
) -> list[int]:
    """The words of one row. top_k is NO_TOP_K, top_p 1, min_p 0 where switched off."""
    floats = struct.unpack("=3q", struct.pack("=3d", temperature, top_p, min_p))
    return [kind, top_k, *floats, *round_keys(random_key)]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What the S rows of a step choose by; `place` means an index into them."""

    settings: Tensor
    """int64 [rows of the worker, COLUMNS]."""
    rows_S: Tensor
    """int64: line of each place."""
    positions_S: Tensor
    """int64: position of the token to be drawn."""
    unfiltered: list[int]
    filtered: list[int]
    """Places of these kinds, ascending, as the host knows them."""

    @staticmethod
    def of(kinds: list[int], settings: Tensor, rows_S: Tensor, positions_S: Tensor) -> Draws:
        """kinds: that of each place."""
        return Draws(
            settings=settings,
            rows_S=rows_S,
            positions_S=positions_S,
            unfiltered=[place for place, kind in enumerate(kinds) if kind == UNFILTERED],
            filtered=[place for place, kind in enumerate(kinds) if kind == FILTERED],
        )


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Settings of R rows. top_k is NO_TOP_K, top_p 1, min_p 0 where switched off."""

    temperature_R: Tensor
    top_k_R: Tensor
    top_p_R: Tensor
    min_p_R: Tensor

    @staticmethod
    def of(lines_RW: Tensor) -> Filters:
        floats_RW = lines_RW.view(torch.float64)
        return Filters(
            temperature_R=floats_RW[:, TEMPERATURE],
            top_k_R=lines_RW[:, TOP_K],
            top_p_R=floats_RW[:, TOP_P],
            min_p_R=floats_RW[:, MIN_P],
        )

    def take(self, index: Tensor) -> Filters:
        return Filters(
            temperature_R=self.temperature_R[index],
            top_k_R=self.top_k_R[index],
            top_p_R=self.top_p_R[index],
            min_p_R=self.min_p_R[index],
        )
