"""What encoders add to the scores of attention for the distance between a query and a key.

B texts of L tokens each, H heads, D head width, P distances, R rows of a table of distances, E width.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from octavo.layers.embedding import Embedding
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot

RowOf = Callable[[torch.Tensor], torch.Tensor]
"""From distances to the rows of a table that stand for them, both int64."""


class DistanceBias(nn.Module):
    """A number for each head and bucket of distances, one table for all layers (T5, arXiv 1910.10683)."""

    def __init__(self, num_buckets: int, num_heads: int, *, max_distance: int, placement: Placement) -> None:
        super().__init__()
        self.table = Embedding(num_buckets, num_heads, placement=placement)
        self._rows = DistanceRows(
            lambda distances_P: bucketed(distances_P, num_buckets, max_distance), placement
        )

    def forward(self, q_BHLD: torch.Tensor, k_BHLD: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """[1, H, L, L]"""
        length = q_BHLD.shape[2]
        bias_HP = self.table.forward(self._rows.within(length)).t()
        # Query i sees distances from -i on: its window of the P begins L - 1 - i of them behind the first.
        return bias_HP.unfold(1, length, 1).flip(1)[None]

    def slots(self, name: str) -> list[WeightSlot]:
        return self.table.slots(name)


class DisentangledBias(nn.Module):
    """Content times position and position times content, of one layer (DeBERTa, arXiv 2006.03654).

    A distance has a key, which queries meet, and a query, which keys meet: projections of its embedding that
    are the same in every step, so they are made once the weights are there.
    """

    def __init__(
        self, num_rows: int, num_heads: int, head_dim: int, *, row_of: RowOf, placement: Placement
    ) -> None:
        """row_of: of the distances query minus key."""
        super().__init__()
        self._rows = DistanceRows(row_of, placement)
        self._shape = (num_rows, num_heads, head_dim)
        self.keys_HRD, self.queries_HRD = (
            nn.Parameter(placement.empty(num_heads, num_rows, head_dim), requires_grad=False)
            for _ in range(2)
        )

    def keep(self, queries_RE: torch.Tensor, keys_RE: torch.Tensor, scale: float) -> None:
        """scale: of the layer's scores."""
        for kept_HRD, given_RE in ((self.keys_HRD, keys_RE), (self.queries_HRD, queries_RE)):
            kept_HRD.copy_(given_RE.reshape(self._shape).transpose(0, 1)).mul_(scale)

    def forward(self, q_BHLD: torch.Tensor, k_BHLD: torch.Tensor) -> torch.Tensor:
        """[B, H, L, L]"""
        rows_P = self._rows.within(q_BHLD.shape[2])
        keys_HPD = self.keys_HRD.index_select(1, rows_P.flip(0))
        queries_HPD = self.queries_HRD.index_select(1, rows_P)
        by_query = skewed(q_BHLD @ keys_HPD.transpose(1, 2))
        by_key = skewed(k_BHLD @ queries_HPD.transpose(1, 2))
        return by_query + by_key.transpose(-1, -2)


class DistanceRows:
    """Rows for the distances of texts of any length, looked up once."""

    def __init__(self, row_of: RowOf, placement: Placement) -> None:
        self._furthest = placement.max_positions - 1
        # On the CPU: a bucket's edge must not depend on a device's logarithm.
        rows_P = row_of(torch.arange(-self._furthest, self._furthest + 1))
        self._rows_P = rows_P.to(placement.device)

    def within(self, length: int) -> torch.Tensor:
        """[2 L - 1]: of the distances from -(L - 1) to L - 1."""
        return self._rows_P[self._furthest - (length - 1) : self._furthest + length]


def skewed(x_BHLP: torch.Tensor) -> torch.Tensor:
    """[B, H, L, L] of [B, H, L, 2 L - 1]: row i begins at column L - 1 - i. A view."""
    x_BHLP = x_BHLP.contiguous()
    length, columns = x_BHLP.shape[-2:]
    return x_BHLP.as_strided(
        (*x_BHLP.shape[:-1], length),
        (*x_BHLP.stride()[:-2], columns - 1, 1),
        x_BHLP.storage_offset() + length - 1,
    )


def bucketed(distances_P: torch.Tensor, num_buckets: int, max_distance: int) -> torch.Tensor:
    """T5's buckets of distances key minus query: half of them for keys behind the query.

    Of each half one half stands for single distances, the rest for ranges that grow up to max_distance.
    """
    half = num_buckets // 2
    exact = half // 2
    far_P = distances_P.abs()
    grown_P = torch.log(far_P.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (half - exact)
    large_P = (exact + grown_P.long()).clamp(max=half - 1)
    return torch.where(far_P < exact, far_P, large_P) + (distances_P > 0).long() * half


def log_bucketed(distances_P: torch.Tensor, num_buckets: int, max_distance: int) -> torch.Tensor:
    """DeBERTa's buckets: up to half of them stand for themselves, the rest for ranges up to max_distance.

    As signed numbers, so that a bucket's opposite is the opposite distance's.
    """
    middle = num_buckets // 2
    far_P = distances_P.abs()
    grown_P = torch.log(far_P.clamp(min=1).float() / middle) / torch.log(
        torch.tensor((max_distance - 1) / middle)
    )
    large_P = (torch.ceil(grown_P * (middle - 1)) + middle).long() * distances_P.sign()
    return torch.where(far_P <= middle, distances_P, large_P)
