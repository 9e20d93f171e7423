"""Token ids to vectors. T tokens, V vocabulary, E width."""

from __future__ import annotations

import torch
from torch import nn

from octavo.layers.linear import Linear
from octavo.layers.slot import WeightSlot


class Embedding(nn.Module):
    """A table of its own, used as it lies in the file where type and device allow."""

    def __init__(self, vocab_size: int, width: int, *, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        weight_VE = torch.empty(vocab_size, width, dtype=dtype, device=device)
        self.weight_VE = nn.Parameter(weight_VE, requires_grad=False)

    def forward(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.weight_VE.index_select(0, token_ids_T)

    def slots(self, name: str) -> list[WeightSlot]:
        return [WeightSlot(name=f"{name}.weight", target=self.weight_VE, adopt=self._adopt)]

    def _adopt(self, weight_VE: torch.Tensor) -> None:
        self.weight_VE = nn.Parameter(weight_VE, requires_grad=False)


class TiedEmbedding(nn.Module):
    """Reads the columns of a logits head: one storage for both.

    Slower than looking up rows, and small beside the step.
    """

    def __init__(self, head: Linear) -> None:
        super().__init__()
        self.head = head

    def forward(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.head.weight_IO.index_select(1, token_ids_T).t().contiguous()

    def slots(self, name: str) -> list[WeightSlot]:
        return self.head.slots(name)
