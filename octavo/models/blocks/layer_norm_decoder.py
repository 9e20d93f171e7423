"""LayerNormDecoder: what the families with layer norms share. A family is a `Make`, read from its config.

T tokens, S positions that want logits, E width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.activations import ACTIVATIONS
from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.embedding import Embedding, TiedEmbedding
from octavo.layers.linear import Linear
from octavo.layers.mlp import GatedMLP
from octavo.layers.norm import LayerNorm
from octavo.layers.placement import Placement
from octavo.layers.plain_mlp import PlainMLP
from octavo.layers.residual import Residual
from octavo.layers.rope import rotation_table
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVKind, KVSpec
from octavo.models.blocks.normed_layer import Flow, NormedLayer
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import DecoderConfig
from octavo.ops.paged_plain import AttentionTerms

GATED_SILU = "gated silu"


@dataclass(frozen=True, kw_only=True)
class PartNames:
    """What the checkpoint calls the parts: of the model, then within a layer."""

    embedding: str = "model.embed_tokens"
    layers: str = "model.layers"
    norm: str = "model.norm"
    head: str = "lm_head"
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    up: tuple[str, ...] = ("mlp.up_proj",)
    """Of a gated MLP: gate and up."""
    down: str = "mlp.down_proj"


@dataclass(frozen=True, kw_only=True)
class Make:
    """What is true of a family's model."""

    facts: DecoderConfig
    names: PartNames
    epsilon: float
    flow: Flow = Flow.NORM_BEFORE
    activation: str
    """One of ACTIVATIONS, or GATED_SILU."""
    has_qkv_bias: bool
    has_out_bias: bool
    has_mlp_bias: bool
    has_head_bias: bool = False
    has_norm_bias: bool = True
    has_mlp_norm: bool = True
    has_final_norm: bool = True
    norm_offset: float = 0.0
    rotates: bool = True
    window: int | None = None
    clip: float | None = None
    """As HeadShape has it."""
    bias_slopes: tuple[float, ...] | None = None
    """Of linear biases, one for each query head (layers/linear_biases.py)."""
    rounds_biases: bool = False
    """As AttentionTerms has it."""


class LayerNormDecoder(nn.Module, ABC):
    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__()
        self.make = make = self.read_config(config)
        facts = make.facts
        self.vocab_size = facts.vocab_size
        self.num_heads = facts.num_heads
        self.hidden_size = self.embedding_width(config)
        self.head = Linear(self.hidden_size, [facts.vocab_size], bias=make.has_head_bias, placement=placement)
        self.embedding = (
            TiedEmbedding(self.head)
            if facts.tie_word_embeddings
            else Embedding(facts.vocab_size, self.hidden_size, placement=placement)
        )
        rotation_PD = rotation_table(facts.rope, placement) if make.rotates else None
        slopes_H = None
        if make.bias_slopes is not None:
            slopes_H = torch.tensor(make.bias_slopes, dtype=torch.float32, device=placement.device)
        self.blocks = [
            self._make_layer(index, self.score_scale(config, index), slopes_H, rotation_PD, placement)
            for index in range(facts.num_layers)
        ]
        self.layers = nn.ModuleList(self.blocks)
        self.norm = self._make_norm(placement) if make.has_final_norm else None

    @classmethod
    @abstractmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        """What is true of the family, from its config. ModelFileError for what it cannot be."""

    def embedding_width(self, config: Mapping[str, Any]) -> int:  # noqa: ARG002
        """Of the vectors that ids look up and logits come from."""
        return self.make.facts.hidden_size

    def score_scale(self, config: Mapping[str, Any], index: int) -> float:  # noqa: ARG002
        """What scores of the layer of this number are multiplied with."""
        return float(self.make.facts.head_dim**-0.5)

    def first_inputs(self, x_TE: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Families that add positions to their embeddings do it here."""
        return x_TE

    def kv_layers(self) -> list[KVSpec]:
        facts, window = self.make.facts, self.make.window
        spec = KVSpec(
            kind=KVKind.FULL if window is None else KVKind.SLIDING_WINDOW,
            num_kv_heads=facts.num_kv_heads,
            head_dim=facts.head_dim,
            dtype_bytes=self.head.weight.element_size(),
            window=window,
            has_plain_softmax=self.make.bias_slopes is None,
        )
        return [spec] * facts.num_layers

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.embedding.forward(token_ids_T)

    def forward(self, batch: ModelInput) -> torch.Tensor:
        given_TE = batch.inputs_TE
        x_TE = self.embed(batch.token_ids_T) if given_TE is None else given_TE
        stream = Residual(self.first_inputs(x_TE, batch.positions_T))
        for block in self.blocks:
            stream = block.forward(stream, batch.attend)
        return stream.total() if self.norm is None else self.norm.add(*stream)[1]

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        return self.head.forward(hidden_SE)

    def weight_slots(self) -> list[WeightSlot]:
        names = self.make.names
        slots = self.embedding.slots(names.embedding)
        if self.make.facts.tie_word_embeddings and self.make.has_head_bias:
            # The embedding's slots are the head's: its bias among them, under the wrong name.
            slots = [*slots[:1], *self.head.slots(names.head)[1:]]
        for index, block in enumerate(self.blocks):
            slots += self.layer_slots(block, f"{names.layers}.{index}")
        if self.norm is not None:
            slots += self.norm.slots(names.norm)
        return slots if self.make.facts.tie_word_embeddings else slots + self.head.slots(names.head)

    def layer_slots(self, block: NormedLayer, name: str) -> list[WeightSlot]:
        names, mlp = self.make.names, block.mlp
        slots = block.attention_norm.slots(f"{name}.{names.attention_norm}")
        if block.mlp_norm is not None:
            slots += block.mlp_norm.slots(f"{name}.{names.mlp_norm}")
        up = mlp.gate_up if isinstance(mlp, GatedMLP) else mlp.up
        return [
            *slots,
            *block.attention.qkv.slots(*(f"{name}.{part}" for part in names.qkv)),
            *block.attention.out.slots(f"{name}.{names.out}"),
            *up.slots(*(f"{name}.{part}" for part in names.up)),
            *mlp.down.slots(f"{name}.{names.down}"),
        ]

    def _make_layer(
        self,
        index: int,
        scale: float,
        slopes_H: torch.Tensor | None,
        rotation_PD: torch.Tensor | None,
        placement: Placement,
    ) -> NormedLayer:
        make = self.make
        facts = make.facts
        attention = SelfAttention(
            index,
            facts.hidden_size,
            HeadShape(
                num_heads=facts.num_heads,
                num_kv_heads=facts.num_kv_heads,
                head_dim=facts.head_dim,
                clip=make.clip,
            ),
            has_qkv_bias=make.has_qkv_bias,
            has_out_bias=make.has_out_bias,
            terms=AttentionTerms(
                scale=scale, window=make.window, slopes_H=slopes_H, rounds_biases=make.rounds_biases
            ),
            rotation_PD=rotation_PD,
            placement=placement,
        )
        mlp_norm = self._make_norm(placement) if make.has_mlp_norm else None
        return NormedLayer(
            attention, self._make_mlp(placement), self._make_norm(placement), mlp_norm, make.flow
        )

    def _make_mlp(self, placement: Placement) -> GatedMLP | PlainMLP:
        make = self.make
        width, inner = make.facts.hidden_size, make.facts.intermediate_size
        if make.activation == GATED_SILU:
            return GatedMLP(width, inner, bias=make.has_mlp_bias, placement=placement)
        return PlainMLP(width, inner, bias=make.has_mlp_bias, activation=make.activation, placement=placement)

    def _make_norm(self, placement: Placement) -> LayerNorm:
        make = self.make
        return LayerNorm(
            make.facts.hidden_size,
            epsilon=make.epsilon,
            has_bias=make.has_norm_bias,
            offset=make.norm_offset,
            placement=placement,
        )


def plain_facts(config: Mapping[str, Any], **modern: Any) -> DecoderConfig:
    """The numbers of a family with an MLP of its own kind. modern: entries that it spells otherwise."""
    silu = {"hidden_act": "silu", "hidden_activation": None}
    return DecoderConfig.from_config({**config, **modern, **silu}, may_be_partial=True)


def read_activation(config: Mapping[str, Any], name: str, default: str) -> str:
    """One of ACTIVATIONS; ModelFileError names them otherwise."""
    value = config.get(name) or default
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise ModelFileError(
            f"The model's {name} is {str(value)[:40]!r}; supported are {', '.join(ACTIVATIONS)}."
        )
    return value


def refuse(config: Mapping[str, Any], name: str, *, what: str) -> None:
    """ModelFileError if the config asks for a variant that the family's class does not compute."""
    if config.get(name):
        raise ModelFileError(
            f"The model's config has {name}: {what} is not supported for this family. With model_impl "
            "transformers it may run, by transformers' own modules."
        )
