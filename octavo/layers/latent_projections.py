"""What surrounds latent attention: queries and rows from the stream, and back onto it.

T tokens, E width, H heads, D width of a query, W numbers kept per token.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import nn

from octavo.attention.latents import LatentShape
from octavo.layers.linear import Linear
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot

NORM_EPSILON = 1e-6
"""Of the norms inside, whatever a model's other norms add."""


class LatentProjections(nn.Module):
    def __init__(
        self,
        width: int,
        num_heads: int,
        shape: LatentShape,
        query_rank: int | None,
        has_neighbour_pairs: bool,
        placement: Placement,
    ) -> None:
        """query_rank: width between the two matrices that make queries; None: there is one.

        has_neighbour_pairs: the checkpoint rotates neighbouring columns against each other, not halves.
        """
        super().__init__()
        self.shape = shape
        self.num_heads = num_heads
        self._has_neighbour_pairs = has_neighbour_pairs
        self._first_width = query_rank or num_heads * shape.query
        self.down = Linear(width, [self._first_width, shape.row], placement=placement)
        """Queries, or what they are made from, and the token's row."""
        self.q_norm = self.q_up = None
        if query_rank is not None:
            self.q_norm = RMSNorm(query_rank, epsilon=NORM_EPSILON, placement=placement)
            self.q_up = Linear(query_rank, [num_heads * shape.query], placement=placement)
        self.latent_norm = RMSNorm(shape.latent, epsilon=NORM_EPSILON, placement=placement)
        self.out = Linear(num_heads * shape.value, [width], placement=placement)

    def project(self, stream: Residual, norm: RMSNorm | None) -> tuple[Residual, torch.Tensor]:
        """The stream and [T, H * D + W]: queries and rows; rows are not normed, and nothing is rotated."""
        stream, qkv_TO = self.down.from_stream(stream, norm)
        if self.q_norm is not None and self.q_up is not None:
            end = self._first_width
            q_TO = self.q_up.forward(self.q_norm.forward(qkv_TO[:, :end]))
            qkv_TO = torch.cat((q_TO, qkv_TO[:, end:]), -1)
        return stream, qkv_TO

    @abstractmethod
    def up_slot(self, name: str) -> WeightSlot:
        """Of what makes keys and values from latents."""

    def slots(self, name: str) -> list[WeightSlot]:
        first = "q_proj" if self.q_up is None else "q_a_proj"
        slots = self.down.slots(f"{name}.{first}", f"{name}.kv_a_proj_with_mqa")
        if self.q_norm is not None and self.q_up is not None:
            slots += [*self.q_norm.slots(f"{name}.q_a_layernorm"), *self.q_up.slots(f"{name}.q_b_proj")]
        if self._has_neighbour_pairs:
            slots = [self._in_halves(slot) for slot in slots]
        return [
            *slots,
            *self.latent_norm.slots(f"{name}.kv_a_layernorm"),
            self.up_slot(f"{name}.kv_b_proj.weight"),
            *self.out.slots(f"{name}.o_proj"),
        ]

    def _in_halves(self, slot: WeightSlot) -> WeightSlot:
        """Rotated pairs are neighbours in the checkpoint and half of R apart here: scores are the same."""
        if slot.name.endswith(("q_proj.weight", "q_b_proj.weight")):
            return replace(slot, order_R=self._order(self.num_heads, self.shape.nope))
        if slot.name.endswith("kv_a_proj_with_mqa.weight"):
            return replace(slot, order_R=self._order(1, self.shape.latent))
        return slot

    def _order(self, num_heads: int, kept: int) -> torch.Tensor:
        """Rows of heads whose first `kept` stay and whose others are pairs."""
        row = torch.arange(kept + self.shape.rotated)
        order = torch.cat((row[:kept], row[kept::2], row[kept + 1 :: 2]))
        return (torch.arange(num_heads)[:, None] * len(row) + order).flatten()
