"""Llama 2 and 3, SmolLM2 and all that share their shape; Mistral, which may see only a window.

T tokens, S positions that want logits, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from octavo.layers.embedding import Embedding, TiedEmbedding
from octavo.layers.linear import Linear
from octavo.layers.mlp import MLP, Gate, GatedMLP, MLPNames
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.rope import rotation_table
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVKind, KVSpec
from octavo.models.blocks.branch import BranchLayer
from octavo.models.blocks.decoder import DecoderLayer, LayerPlace
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import DecoderConfig


class LlamaForCausalLM(nn.Module):
    """Decoder layers between an embedding and a head, which may be one matrix."""

    has_head_norms: ClassVar[bool] = False
    """Whether queries and keys are normalised per head."""
    has_qkv_bias: bool = False
    """Whether queries, keys and values have biases whatever the config's attention_bias says."""
    norm_offset: ClassVar[float] = 0.0
    """What is added to the weights of norms."""
    mlp_names: ClassVar[MLPNames] = MLPNames()
    gate: ClassVar[Gate] = Gate.SILU

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__()
        facts = self.read_config(config)
        width = facts.hidden_size
        self.vocab_size = facts.vocab_size
        self.num_heads = facts.num_heads
        self.hidden_size = width
        self.facts = facts
        self.windows = self.layer_windows(config, facts)
        """By layer: the tokens that its queries see; None: all before them."""
        self.head = Linear(width, [facts.vocab_size], placement=placement)
        self.embedding = (
            TiedEmbedding(self.head) if facts.tie_word_embeddings else self.make_table(facts, placement)
        )
        rotations = self.layer_rotations(config, facts, placement)
        self.blocks = [
            self.make_layer(
                config,
                facts,
                LayerPlace(
                    index=index, window=self.windows[index], rotation_PD=rotations[index], placement=placement
                ),
            )
            for index in range(facts.num_layers)
        ]
        self.layers = nn.ModuleList(self.blocks)
        self.norm = RMSNorm(width, epsilon=facts.rms_norm_eps, offset=self.norm_offset, placement=placement)

    def weight_slots(self) -> list[WeightSlot]:
        slots = self.embedding.slots("model.embed_tokens")
        for layer, block in enumerate(self.blocks):
            slots += block.slots(f"model.layers.{layer}")
        slots += self.norm.slots("model.norm")
        return slots if self.facts.tie_word_embeddings else slots + self.head.slots("lm_head")

    @staticmethod
    def make_table(facts: DecoderConfig, placement: Placement) -> Embedding | TiedEmbedding:
        """An embedding that is not the head's matrix: plain numbers, or packed as in the file."""
        if placement.native is None:
            return Embedding(facts.vocab_size, facts.hidden_size, placement=placement)
        return TiedEmbedding(Linear(facts.hidden_size, [facts.vocab_size], placement=placement))

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Families whose configs are to be read in another way say so here."""
        return DecoderConfig.from_config(config)

    def make_layer(
        self,
        config: Mapping[str, Any],
        facts: DecoderConfig,
        place: LayerPlace,
    ) -> DecoderLayer | BranchLayer:
        """Families whose layers are of another make say so here."""
        return DecoderLayer(
            place.index,
            self.make_mlp(config, facts, place),
            facts,
            window=place.window,
            has_head_norms=self.has_head_norms,
            has_qkv_bias=self.has_qkv_bias or facts.attention_bias,
            rotation_PD=place.rotation_PD,
            placement=place.placement,
        )

    def make_mlp(
        self,
        config: Mapping[str, Any],  # noqa: ARG002
        facts: DecoderConfig,
        place: LayerPlace,
    ) -> MLP:
        """Families whose layers have another MLP say so here."""
        return GatedMLP(
            facts.hidden_size,
            facts.intermediate_size,
            bias=facts.mlp_bias,
            gate=self.gate,
            names=self.mlp_names,
            placement=place.placement,
        )

    def layer_rotations(
        self,
        config: Mapping[str, Any],  # noqa: ARG002
        facts: DecoderConfig,
        placement: Placement,
    ) -> list[torch.Tensor | None]:
        """By layer: its rotation_table; None: positions are not rotated."""
        return [rotation_table(facts.rope, placement)] * facts.num_layers

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:  # noqa: ARG002
        """Llama's config may name a sliding_window, which means nothing."""
        return [None] * facts.num_layers

    def kv_layers(self) -> list[KVSpec]:
        return [
            KVSpec(
                kind=KVKind.FULL if window is None else KVKind.SLIDING_WINDOW,
                num_kv_heads=self.facts.num_kv_heads,
                head_dim=self.facts.head_dim,
                dtype_bytes=self.head.weight.element_size(),
                window=window,
            )
            for window in self.windows
        ]

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.embedding.forward(token_ids_T)

    def first_inputs(self, x_TE: torch.Tensor) -> torch.Tensor:
        """Families that scale their embeddings do it here; x_TE may be written."""
        return x_TE

    def forward(self, batch: ModelInput) -> torch.Tensor:
        given_TE = batch.inputs_TE
        x_TE = self.embed(batch.token_ids_T) if given_TE is None else given_TE
        stream = Residual(self.first_inputs(x_TE))
        for block in self.blocks:
            stream = block.forward(stream, batch.attend)
        return self.norm.add(*stream)[1]

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        return self.head.forward(hidden_SE)


class MistralForCausalLM(LlamaForCausalLM):
    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:  # noqa: ARG002
        return [facts.sliding_window] * facts.num_layers
