"""Heads that score labels. S texts, E width, N labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from octavo.config.pooling import TokenScores
from octavo.layers.linear import Linear
from octavo.layers.norm import LayerNorm
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.models.contract import CausalLM


class ScoreHead(nn.Module):
    """One product: what decoders score with."""

    def __init__(self, width: int, num_labels: int, placement: Placement) -> None:
        super().__init__()
        self.score = Linear(width, [num_labels], placement=placement)

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        return self.score.forward(pooled_SE.to(self.score.weight.dtype))

    def slots(self) -> list[WeightSlot]:
        return self.score.slots("score")


class KeptRows(nn.Module):
    """A few rows of a decoder's own head, in its place: the logits of a few tokens. float32."""

    def __init__(self, whole: Linear, token_ids: Sequence[int]) -> None:
        super().__init__()
        ids_N = torch.tensor(token_ids, device=whole.weight.device)
        bias_N = None if whole.bias_O is None else whole.bias_O[ids_N].float()
        self.weight_NE = nn.Parameter(whole.rows(ids_N).float(), requires_grad=False)
        self.bias_N = None if bias_N is None else nn.Parameter(bias_N, requires_grad=False)

    def forward(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        return functional.linear(hidden_SE.float(), self.weight_NE, self.bias_N)


class TokenHead(nn.Module):
    """Scores by the logits of a few tokens, which the decoder itself computes: scales and caps are its own.

    Until the weights are there the decoder has its whole head; `keep` leaves the rows of these tokens.
    """

    def __init__(self, decoder: CausalLM, scores: TokenScores) -> None:
        super().__init__()
        self._logits = decoder.logits
        self._decoder = decoder
        self._scores = scores

    def keep(self) -> None:
        decoder: Any = self._decoder
        decoder.head = KeptRows(decoder.head, self._scores.token_ids)

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        logits_SN = self._logits(pooled_SE)
        return logits_SN[:, 1:] - logits_SN[:, :1] if self._scores.is_difference else logits_SN

    def slots(self) -> list[WeightSlot]:
        """None beside the decoder's own."""
        return []


@dataclass(frozen=True, kw_only=True)
class DenseNames:
    """How a family calls the tensors of its head."""

    dense: str
    out: str
    norm: str | None = None


class DenseHead(nn.Module):
    """A hidden layer, perhaps a norm, and the product that scores: what encoders score with."""

    def __init__(
        self,
        width: int,
        num_labels: int,
        *,
        names: DenseNames,
        activation: Callable[[torch.Tensor], torch.Tensor],
        has_dense_bias: bool = True,
        norm: LayerNorm | None = None,
        placement: Placement,
    ) -> None:
        super().__init__()
        self._names = names
        self._activation = activation
        self.dense = Linear(width, [width], bias=has_dense_bias, placement=placement)
        self.norm = norm
        self.out = Linear(width, [num_labels], bias=True, placement=placement)

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        x_SE = self._activation(self.dense.forward(pooled_SE.to(self.dense.weight.dtype)))
        return self.out.forward(x_SE if self.norm is None else self.norm.forward(x_SE))

    def slots(self) -> list[WeightSlot]:
        names = self._names
        slots = [*self.dense.slots(names.dense), *self.out.slots(names.out)]
        return slots if self.norm is None or names.norm is None else [*slots, *self.norm.slots(names.norm)]
