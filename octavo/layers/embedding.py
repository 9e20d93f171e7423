"""Token ids to vectors. T tokens, V vocabulary, E width."""

from __future__ import annotations

import torch
from torch import nn

from octavo.layers.linear import Linear
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot


class Embedding(nn.Module):
    """A table of its own."""

    def __init__(self, vocab_size: int, width: int, *, placement: Placement) -> None:
        super().__init__()
        self.weight_VE = nn.Parameter(placement.empty(vocab_size, width), requires_grad=False)

    def forward(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.weight_VE.index_select(0, token_ids_T)

    def slots(self, name: str) -> list[WeightSlot]:
        return [WeightSlot(name=f"{name}.weight", target=self.weight_VE)]


class TiedEmbedding(nn.Module):
    """Reads the rows of a linear layer: of the logits head, one storage for both, or of a packed table."""

    def __init__(self, head: Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.head.rows(token_ids_T)

    def slots(self, name: str) -> list[WeightSlot]:
        return self.head.slots(name)
