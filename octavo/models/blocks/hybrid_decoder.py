"""HybridDecoder: a decoder whose layers attend, remember in a state of fixed size, or both.

T tokens, S positions that want logits, E width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import nn

from octavo.layers.attention import SelfAttention
from octavo.layers.embedding import Embedding, TiedEmbedding
from octavo.layers.factor import Factor
from octavo.layers.linear import Linear
from octavo.layers.mlp import MLP
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.recurrent import RecurrentMixer, RecurrentStep
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVKind, KVSpec, StateSpec
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import DecoderConfig


class Layer(Protocol):
    """What a HybridDecoder asks of a layer; an nn.Module."""

    def forward(self, stream: Residual, batch: ModelInput) -> Residual: ...

    def slots(self, name: str) -> list[WeightSlot]: ...


class HybridDecoder(nn.Module, ABC):
    embedding_name: ClassVar[str] = "model.embed_tokens"
    layers_name: ClassVar[str] = "model.layers"
    norm_name: ClassVar[str] = "model.norm"
    norm_offset: ClassVar[float] = 0.0

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__()
        self.facts = facts = self.read_config(config)
        self.vocab_size = facts.vocab_size
        self.num_heads = facts.num_heads
        self.hidden_size = width = facts.hidden_size
        self.head = Linear(width, [facts.vocab_size], placement=placement)
        self.embedding = (
            TiedEmbedding(self.head)
            if facts.tie_word_embeddings
            else Embedding(facts.vocab_size, width, placement=placement)
        )
        self.blocks = self.make_layers(config, placement)
        self.layers = nn.ModuleList(self.blocks)  # type: ignore[arg-type]
        self.norm = RMSNorm(width, epsilon=facts.rms_norm_eps, offset=self.norm_offset, placement=placement)

    @classmethod
    @abstractmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """The numbers that all decoders have. ModelFileError for what cannot be."""

    @abstractmethod
    def make_layers(self, config: Mapping[str, Any], placement: Placement) -> list[Layer]:
        """In order; attention and recurrent layers are each numbered among their own."""

    def kv_layers(self) -> list[KVSpec]:
        facts = self.facts
        spec = KVSpec(
            kind=KVKind.FULL,
            num_kv_heads=facts.num_kv_heads,
            head_dim=facts.head_dim,
            dtype_bytes=self.head.weight.element_size(),
        )
        return [spec for module in self.modules() if isinstance(module, SelfAttention)]

    def recurrent_layers(self) -> list[StateSpec]:
        return [module.state_spec() for module in self.modules() if isinstance(module, RecurrentMixer)]

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.embedding.forward(token_ids_T)

    def first_inputs(self, x_TE: torch.Tensor) -> torch.Tensor:
        """Families that scale their embeddings do it here."""
        return x_TE

    def forward(self, batch: ModelInput) -> torch.Tensor:
        given_TE = batch.inputs_TE
        x_TE = self.embed(batch.token_ids_T) if given_TE is None else given_TE
        stream = Residual(self.first_inputs(x_TE))
        for block in self.blocks:
            stream = block.forward(stream, batch)
        return self.norm.add(*stream)[1]

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        return self.head.forward(hidden_SE)

    def weight_slots(self) -> list[WeightSlot]:
        slots = self.embedding.slots(self.embedding_name)
        for index, block in enumerate(self.blocks):
            slots += block.slots(f"{self.layers_name}.{index}")
        slots += self.norm.slots(self.norm_name)
        return slots if self.facts.tie_word_embeddings else slots + self.head.slots("lm_head")


class HybridLayer(nn.Module):
    """x + factor * mixer(norm(x)), then the same with the MLP. The mixer attends or remembers."""

    def __init__(
        self,
        mixer: SelfAttention | RecurrentMixer,
        mlp: MLP,
        facts: DecoderConfig,
        *,
        recurrent_name: str = "mamba",
        norm_names: tuple[str, str] = ("input_layernorm", "post_attention_layernorm"),
        norm_offset: float = 0.0,
        factor: float = 1.0,
        placement: Placement,
    ) -> None:
        super().__init__()
        self.mixer_name = recurrent_name if isinstance(mixer, RecurrentMixer) else "self_attn"
        self.norm_names = norm_names
        self.mixer_norm, self.mlp_norm = (
            RMSNorm(facts.hidden_size, epsilon=facts.rms_norm_eps, offset=norm_offset, placement=placement)
            for _ in range(2)
        )
        self.mixer = mixer
        self.mlp = mlp
        self.factor = None if factor == 1.0 else Factor(factor)

    def forward(self, stream: Residual, batch: ModelInput) -> Residual:
        mixer = self.mixer
        if isinstance(mixer, RecurrentMixer):
            stream = mixer.forward(stream, self.mixer_norm, states_of(batch), self.factor)
        else:
            stream = mixer.forward(stream, self.mixer_norm, batch.attend, self.factor)
        return self.mlp.forward(stream, self.mlp_norm, self.factor)

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.mixer_norm.slots(f"{name}.{self.norm_names[0]}"),
            *self.mixer.slots(f"{name}.{self.mixer_name}"),
            *self.mlp_norm.slots(f"{name}.{self.norm_names[1]}"),
            *self.mlp.slots(name),
        ]


def states_of(batch: ModelInput) -> RecurrentStep:
    assert batch.recur is not None, "a model with recurrent layers is run with their states"
    return batch.recur
