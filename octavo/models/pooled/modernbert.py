"""ModernBERT: norms before each branch, gated MLPs, rotated positions, windows in most layers.

T tokens, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from octavo.attention.contract import Attend
from octavo.base.errors import ModelFileError
from octavo.layers.activations import ACTIVATIONS
from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.embedding import Embedding
from octavo.layers.mlp import Gate, GatedMLP
from octavo.layers.norm import LayerNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.rope import RopeFacts, rotation_table
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVSpec
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import read_count, read_number
from octavo.models.layer_types import FULL, SLIDING, layer_types
from octavo.models.pooled.encoder_config import EncoderConfig
from octavo.models.pooled.heads import DenseHead, DenseNames
from octavo.ops.paged_plain import AttentionTerms

THETAS = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}
"""By the type of layer: the older name of its rope's base, and its usual value."""


class PreNormLayer(nn.Module):
    """x + attention(norm(x)), and that + mlp(norm(that)). The first layer's input is normalised already."""

    def __init__(
        self,
        index: int,
        config: Mapping[str, Any],
        facts: EncoderConfig,
        *,
        window: int | None,
        rotation_PD: torch.Tensor,
        placement: Placement,
    ) -> None:
        super().__init__()
        width = facts.hidden_size
        has_bias = bool(config.get("attention_bias"))
        self.attention_norm = None if index == 0 else make_norm(config, facts, placement)
        self.attention = SelfAttention(
            index,
            width,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_heads, head_dim=facts.head_dim),
            has_qkv_bias=has_bias,
            has_out_bias=has_bias,
            terms=AttentionTerms(scale=facts.head_dim**-0.5, window=window),
            rotation_PD=rotation_PD,
            placement=placement,
        )
        self.mlp_norm = make_norm(config, facts, placement)
        self.mlp = GatedMLP(
            width,
            facts.intermediate_size,
            bias=bool(config.get("mlp_bias")),
            gate=Gate(facts.activation),
            placement=placement,
        )

    def forward(self, stream: Residual, attend: Attend) -> Residual:
        stream = self.attention.forward(stream, self.attention_norm, attend)
        return self.mlp.forward(stream, self.mlp_norm)

    def slots(self, name: str) -> list[WeightSlot]:
        norm = [] if self.attention_norm is None else self.attention_norm.slots(f"{name}.attn_norm")
        return [
            *norm,
            *self.attention.qkv.slots(f"{name}.attn.Wqkv"),
            *self.attention.out.slots(f"{name}.attn.Wo"),
            *self.mlp_norm.slots(f"{name}.mlp_norm"),
            *self.mlp.gate_up.slots(f"{name}.mlp.Wi"),
            *self.mlp.down.slots(f"{name}.mlp.Wo"),
        ]


class ModernBertModel(nn.Module):
    prefix: ClassVar[str] = "model."

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__()
        facts = read_config(config)
        self.vocab_size, self.num_heads, self.hidden_size = (
            facts.vocab_size,
            facts.num_heads,
            facts.hidden_size,
        )
        self.tokens = Embedding(facts.vocab_size, facts.hidden_size, placement=placement)
        self.norm = make_norm(config, facts, placement)
        types = layer_types(config, facts.num_layers, _usual_types(config, facts.num_layers))
        # A query sees itself and as many tokens on each side.
        windows = {FULL: None, SLIDING: read_count(config, "local_attention", 2**24, 128) // 2 * 2 + 1}
        rotations = {kind: _rotation(config, facts, kind, placement) for kind in set(types)}
        self.blocks = [
            PreNormLayer(
                index,
                config,
                facts,
                window=windows[kind],
                rotation_PD=rotations[kind],
                placement=placement,
            )
            for index, kind in enumerate(types)
        ]
        self.layers = nn.ModuleList(self.blocks)
        self.final_norm = make_norm(config, facts, placement)

    @classmethod
    def make_head(cls, config: Mapping[str, Any], num_labels: int, placement: Placement) -> DenseHead:
        """What scores labels behind this backbone."""
        facts = read_config(config)
        activation = config.get("classifier_activation") or "gelu"
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise ModelFileError(
                f"classifier_activation is {str(activation)[:40]!r}, which is not supported."
            )
        return DenseHead(
            facts.hidden_size,
            num_labels,
            names=DenseNames(dense="head.dense", norm="head.norm", out="classifier"),
            activation=ACTIVATIONS[activation],
            has_dense_bias=bool(config.get("classifier_bias")),
            norm=make_norm(config, facts, placement),
            placement=placement,
        )

    def weight_slots(self) -> list[WeightSlot]:
        slots = [*self.tokens.slots("embeddings.tok_embeddings"), *self.norm.slots("embeddings.norm")]
        for index, block in enumerate(self.blocks):
            slots += block.slots(f"layers.{index}")
        return [*slots, *self.final_norm.slots("final_norm")]

    def kv_layers(self) -> list[KVSpec]:
        return []

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.tokens.forward(token_ids_T)

    def forward(self, batch: ModelInput) -> torch.Tensor:
        x_TE = self.embed(batch.token_ids_T) if batch.inputs_TE is None else batch.inputs_TE
        stream = Residual(self.norm.forward(x_TE))
        for block in self.blocks:
            stream = block.forward(stream, batch.attend)
        return self.final_norm.add(*stream)[1]


def read_config(config: Mapping[str, Any]) -> EncoderConfig:
    epsilon = read_number(config, "norm_eps", 1e-5)
    facts = EncoderConfig.from_config({**config, "type_vocab_size": 0, "layer_norm_eps": epsilon})
    if facts.activation not in {str(gate) for gate in Gate}:
        raise ModelFileError(f"hidden_activation is {facts.activation!r}; known are {', '.join(Gate)}.")
    return facts


def make_norm(config: Mapping[str, Any], facts: EncoderConfig, placement: Placement) -> LayerNorm:
    return LayerNorm(
        facts.hidden_size,
        epsilon=facts.norm_epsilon,
        has_bias=bool(config.get("norm_bias")),
        placement=placement,
    )


def _usual_types(config: Mapping[str, Any], num_layers: int) -> list[str]:
    period = read_count(config, "global_attn_every_n_layers", 2**16, 3)
    return [SLIDING if index % period else FULL for index in range(num_layers)]


def _rotation(
    config: Mapping[str, Any], facts: EncoderConfig, kind: str, placement: Placement
) -> torch.Tensor:
    """The rotation_table of one type of layers."""
    older, usual = THETAS[kind]
    by_type = config.get("rope_parameters") or {}
    values = dict(by_type.get(kind) or {}) if isinstance(by_type, Mapping) else {}
    values.setdefault("rope_theta", config.get(older) or usual)
    plain = {"rope_parameters": values, "max_position_embeddings": facts.num_positions}
    return rotation_table(RopeFacts.from_config(plain, facts.head_dim), placement)
