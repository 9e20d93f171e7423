"""BERT, RoBERTa, XLM-R, DistilBERT and ELECTRA: one shape, norms behind each addition, learned positions.

T tokens, E width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from octavo.attention.contract import Attend
from octavo.layers.activations import Activation
from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.embedding import Embedding
from octavo.layers.linear import Linear
from octavo.layers.norm import LayerNorm
from octavo.layers.placement import Placement
from octavo.layers.plain_mlp import PlainMLP
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVSpec
from octavo.models.contract import ModelInput
from octavo.models.pooled.encoder_config import EncoderConfig
from octavo.models.pooled.heads import DenseHead, DenseNames
from octavo.ops.paged_plain import AttentionTerms


@dataclass(frozen=True, kw_only=True)
class LayerNames:
    """How a family calls the tensors of a layer."""

    layer: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    output_norm: str = "output.LayerNorm"


class PostNormLayer(nn.Module):
    """norm(x + attention(x)), and norm(that + mlp(that))."""

    def __init__(
        self, index: int, facts: EncoderConfig, terms: AttentionTerms | None, placement: Placement
    ) -> None:
        """terms: see SelfAttention."""
        super().__init__()
        width, epsilon = facts.hidden_size, facts.norm_epsilon
        shape = HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_heads, head_dim=facts.head_dim)
        self.attention = SelfAttention(
            index,
            width,
            shape,
            has_qkv_bias=True,
            has_out_bias=True,
            terms=terms,
            rotation_PD=None,
            placement=placement,
        )
        self.attention_norm = LayerNorm(width, epsilon=epsilon, placement=placement)
        self.mlp = PlainMLP(
            width, facts.intermediate_size, bias=True, activation=facts.activation, placement=placement
        )
        self.output_norm = LayerNorm(width, epsilon=epsilon, placement=placement)

    def forward(self, x_TE: torch.Tensor, attend: Attend) -> torch.Tensor:
        x_TE = self.attention_norm.add(*self.attention.forward(Residual(x_TE), None, attend))[1]
        return self.output_norm.add(*self.mlp.forward(Residual(x_TE), None))[1]

    def slots(self, name: str, names: LayerNames) -> list[WeightSlot]:
        qkv = (f"{name}.{part}" for part in (names.query, names.key, names.value))
        return [
            *self.attention.qkv.slots(*qkv),
            *self.attention.out.slots(f"{name}.{names.out}"),
            *self.attention_norm.slots(f"{name}.{names.attention_norm}"),
            *self.mlp.up.slots(f"{name}.{names.up}"),
            *self.mlp.down.slots(f"{name}.{names.down}"),
            *self.output_norm.slots(f"{name}.{names.output_norm}"),
        ]


class BertModel(nn.Module):
    """Layers behind the sum of three embeddings: of the token, its segment and its position."""

    prefix: ClassVar[str] = "bert."
    names: ClassVar[LayerNames] = LayerNames()
    head_names: ClassVar[DenseNames] = DenseNames(dense="bert.pooler.dense", out="classifier")
    head_activation: ClassVar[Activation] = torch.tanh

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__()
        facts = self.read_config(config)
        width = facts.embedding_size
        self.facts = facts
        self.vocab_size, self.num_heads, self.hidden_size = (
            facts.vocab_size,
            facts.num_heads,
            facts.hidden_size,
        )
        self.tokens = Embedding(facts.vocab_size, width, placement=placement)
        self.positions = (
            Embedding(facts.num_positions, width, placement=placement) if facts.has_positions else None
        )
        self.segments = (
            Embedding(facts.num_segments, width, placement=placement) if facts.num_segments else None
        )
        self.norm = LayerNorm(width, epsilon=facts.norm_epsilon, placement=placement)
        self.widen = (
            None
            if width == self.hidden_size
            else Linear(width, [self.hidden_size], bias=True, placement=placement)
        )
        terms = self.make_terms(config, facts, placement)
        self.blocks = [
            PostNormLayer(index, facts, terms[index], placement) for index in range(facts.num_layers)
        ]
        self.layers = nn.ModuleList(self.blocks)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        return EncoderConfig.from_config(config)

    def make_terms(
        self,
        config: Mapping[str, Any],  # noqa: ARG002
        facts: EncoderConfig,
        placement: Placement,  # noqa: ARG002
    ) -> Sequence[AttentionTerms | None]:
        """What is true of each layer's attention; None: what is usual."""
        return [None] * facts.num_layers

    @classmethod
    def make_head(cls, config: Mapping[str, Any], num_labels: int, placement: Placement) -> DenseHead:
        """What scores labels behind this backbone."""
        return DenseHead(
            cls.read_config(config).hidden_size,
            num_labels,
            names=cls.head_names,
            activation=cls.head_activation,
            placement=placement,
        )

    def weight_slots(self) -> list[WeightSlot]:
        slots = [
            *self.tokens.slots("embeddings.word_embeddings"),
            *(self.positions.slots("embeddings.position_embeddings") if self.positions is not None else []),
            *(self.segments.slots("embeddings.token_type_embeddings") if self.segments is not None else []),
            *self.norm.slots("embeddings.LayerNorm"),
            *(self.widen.slots("embeddings_project") if self.widen is not None else []),
        ]
        for index, block in enumerate(self.blocks):
            slots += block.slots(f"{self.names.layer}.{index}", self.names)
        return slots

    def kv_layers(self) -> list[KVSpec]:
        return []

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        """Of tokens of the first text, without their positions."""
        x_TE = self.tokens.forward(token_ids_T)
        return x_TE if self.segments is None else x_TE.add_(self.segments.weight_VE[0])

    @property
    def embed_second(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """As `embed`, for tokens of the second text of a pair; None: the model does not tell."""
        segments = self.segments
        if segments is None or len(segments.weight_VE) < 2:
            return None
        return lambda token_ids_T: self.tokens.forward(token_ids_T).add_(segments.weight_VE[1])

    def forward(self, batch: ModelInput) -> torch.Tensor:
        x_TE = self.embed(batch.token_ids_T) if batch.inputs_TE is None else batch.inputs_TE
        if self.positions is not None:
            x_TE += self.positions.forward(batch.positions_T + self.facts.first_position)
        x_TE = self.norm.forward(x_TE)
        if self.widen is not None:
            x_TE = self.widen.forward(x_TE)
        for block in self.blocks:
            x_TE = block.forward(x_TE, batch.attend)
        return x_TE


class RobertaModel(BertModel):
    """RoBERTa and XLM-R: positions count on from the padding token's id."""

    prefix = "roberta."
    head_names = DenseNames(dense="classifier.dense", out="classifier.out_proj")


class ElectraModel(BertModel):
    """BERT whose embeddings may be narrower than its layers."""

    prefix = "electra."
    head_names = DenseNames(dense="classifier.dense", out="classifier.out_proj")
    head_activation = functional.gelu


class DistilBertModel(BertModel):
    """BERT without segments, in other words."""

    prefix = "distilbert."
    names = LayerNames(
        layer="transformer.layer",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        out="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        output_norm="output_layer_norm",
    )

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        return EncoderConfig.from_config({**config, "type_vocab_size": 0})

    head_names = DenseNames(dense="pre_classifier", out="classifier")
    head_activation = functional.relu
