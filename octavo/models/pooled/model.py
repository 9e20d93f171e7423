"""PooledModel: a backbone and the head behind the pooling of its states. S texts, N numbers, E width."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from octavo.config.pooling import PoolingFacts
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVSpec, StateSpec
from octavo.models.contract import Backbone, ModelInput, VerifiesItself, recurrent_layers
from octavo.models.pooled.heads import TokenHead


class Head(Protocol):
    """From pooled states [S, E] to answers [S, N]. Also for the states of single tokens.

    States come in the model's type, means in float32.
    """

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor: ...

    def slots(self) -> list[WeightSlot]: ...


class Encoder(Backbone, Protocol):
    """A backbone whose tokens all see each other."""

    prefix: ClassVar[str]
    """What its tensors' names begin with where a head is beside them."""

    make_head: Callable[[Mapping[str, Any], int, Placement], Head]


class PlainHead(nn.Module):
    """An embedding is the pooled state itself."""

    def forward(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        return pooled_SE

    def slots(self) -> list[WeightSlot]:
        return []


class PooledModel(nn.Module):
    """A Backbone to the rest of the worker."""

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        facts: PoolingFacts,
        *,
        prefix: str | None,
        names: Collection[str],
        left_out: Collection[str] = (),
    ) -> None:
        """prefix: what the names of the backbone's tensors begin with where a head is beside it; None: what
        they begin with in the backbone. names: those of the checkpoint, which may have the prefix or not.
        left_out: names of the backbone's tensors that nothing here needs."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.facts = facts
        self.vocab_size = backbone.vocab_size
        self.num_heads = backbone.num_heads
        self.hidden_size = backbone.hidden_size
        self.embed_second: Callable[[torch.Tensor], torch.Tensor] | None = getattr(
            backbone, "embed_second", None
        )
        """As `embed`, for tokens of the second text of a pair; None: the model does not tell."""
        self._kv_layers = [] if facts.is_encoder else backbone.kv_layers()
        self._prefix = prefix
        self._names = names
        self._left_out = left_out

    def weight_slots(self) -> list[WeightSlot]:
        slots = self.backbone.weight_slots()
        slots = [slot for slot in slots if slot.name not in self._left_out]
        return [*as_in(self._names, self._prefix, slots), *self.head.slots()]

    def recurrent_layers(self) -> list[StateSpec]:
        return recurrent_layers(self.backbone)

    def kv_layers(self) -> list[KVSpec]:
        return self._kv_layers

    def verify(self) -> None:
        """The weights are there."""
        if isinstance(self.head, TokenHead):
            self.head.keep()
        if isinstance(self.backbone, VerifiesItself):
            self.backbone.verify()

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.backbone.embed(token_ids_T)

    def forward(self, batch: ModelInput) -> torch.Tensor:
        return self.backbone.forward(batch)

    def answer(self, pooled_SE: torch.Tensor) -> torch.Tensor:
        """float32 [S, N], before normalisation or activation."""
        return self.head.forward(pooled_SE).float()


def as_in(names: Collection[str], prefix: str | None, slots: list[WeightSlot]) -> list[WeightSlot]:
    """The slots by the checkpoint's own names: with the prefix, or without it."""
    if not slots or slots[0].name in names:
        return slots
    prefix = slots[0].name.partition(".")[0] + "." if prefix is None else prefix
    other = [replace(slot, name=with_or_without(prefix, slot.name)) for slot in slots]
    return other if other[0].name in names else slots


def with_or_without(prefix: str, name: str) -> str:
    """The other spelling of a name."""
    return name.removeprefix(prefix) if name.startswith(prefix) else prefix + name
