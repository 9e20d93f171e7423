"""What every model offers. T tokens, S positions that want logits, E width, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from octavo.attention.contract import Attend
from octavo.layers.placement import Placement
from octavo.layers.recurrent import RecurrentStep
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVSpec, StateSpec


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One step as a model sees it: tokens in a row, whoever they belong to."""

    token_ids_T: torch.Tensor
    positions_T: torch.Tensor
    attend: Attend
    recur: RecurrentStep | None = None
    """For models with recurrent layers."""
    inputs_TE: torch.Tensor | None = None
    """What `embed` gives for the tokens, where some of them are no ids; the model may write to it."""


class Backbone(Protocol):
    """From tokens to hidden states. Built empty; `weight_slots` says what to put in."""

    vocab_size: int
    num_heads: int
    hidden_size: int

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        """`config` is in Hugging Face's shape. Raises ModelFileError for values that cannot be."""

    def weight_slots(self) -> list[WeightSlot]:
        """Every tensor the model needs, by its name in the checkpoint."""

    def kv_layers(self) -> list[KVSpec]:
        """What each attention layer keeps per token, in order. None: all tokens of a text see each other."""

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        """[T, E]: rows of the checkpoint's embedding, as they are: a model that scales them does so in
        `forward`.
        """

    def forward(self, batch: ModelInput) -> torch.Tensor:
        """Hidden states [T, E], behind the last norm."""


class CausalLM(Backbone, Protocol):
    """A decoder that predicts the next token."""

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        """[S, V]"""


@runtime_checkable
class Recurrent(Protocol):
    """A model with layers that keep a state of fixed size for each request."""

    def recurrent_layers(self) -> list[StateSpec]:
        """What each of them keeps, in order."""


def recurrent_layers(model: Backbone) -> list[StateSpec]:
    """Empty for models without recurrent layers."""
    return model.recurrent_layers() if isinstance(model, Recurrent) else []


@runtime_checkable
class VerifiesItself(Protocol):
    """A model of which not all is known before it computes."""

    def verify(self) -> None:
        """Called once its weights are there. Raises ModelFileError if it cannot be served."""
