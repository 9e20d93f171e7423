"""Gemma 1 and 2: scaled embeddings, norms by 1 + w, a gelu gate; 2 adds soft caps, windows, more norms.

T tokens, S positions that want logits, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from msgspec import structs

from octavo.layers.attention import HeadNorms, HeadShape, SelfAttention
from octavo.layers.mlp import Gate
from octavo.layers.placement import Placement
from octavo.messages.kv import KVSpec
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import DecoderConfig, read_number
from octavo.models.layer_types import every_nth_full, layer_types, windows_of
from octavo.models.llama import LlamaForCausalLM
from octavo.ops.by_rows import by_rows
from octavo.ops.paged_plain import AttentionTerms

GELU_TANH = ("gelu_pytorch_tanh", "gelu_tanh")


class GemmaForCausalLM(LlamaForCausalLM):
    """Embedding and head are one matrix unless the config says no."""

    norm_offset = 1.0
    gate = Gate.GELU_TANH
    activations: ClassVar[tuple[str, ...]] = (*GELU_TANH, "gelu")
    """The oldest configs say gelu and mean its tanh form."""
    names: ClassVar[BranchNames] = BranchNames(
        before_attention="input_layernorm", before_mlp="post_attention_layernorm"
    )

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.embedding_scale = torch.tensor(self.hidden_size**0.5, dtype=placement.dtype).item()
        """Rounded to the model's type, as in training."""

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        tied = {"tie_word_embeddings": config.get("tie_word_embeddings") in (None, True)}
        return DecoderConfig.from_config(
            {"hidden_act": GELU_TANH[0], **config, **tied}, activations=cls.activations
        )

    def attention_terms(self, config: Mapping[str, Any], facts: DecoderConfig) -> AttentionTerms:  # noqa: ARG002
        """What all layers share."""
        return AttentionTerms(scale=facts.head_dim**-0.5)

    def make_layer(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> BranchLayer:
        head_norms = HeadNorms(epsilon=facts.rms_norm_eps, offset=self.norm_offset)
        attention = SelfAttention(
            place.index,
            facts.hidden_size,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_kv_heads, head_dim=facts.head_dim),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            terms=replace(self.attention_terms(config, facts), window=place.window),
            norms=head_norms if self.has_head_norms else None,
            rotation_PD=place.rotation_PD,
            placement=place.placement,
        )
        return BranchLayer(
            attention,
            self.make_mlp(config, facts, place),
            facts,
            self.names,
            norm_offset=self.norm_offset,
            placement=place.placement,
        )

    def first_inputs(self, x_TE: torch.Tensor) -> torch.Tensor:
        return x_TE.mul_(self.embedding_scale)


class Gemma2ForCausalLM(GemmaForCausalLM):
    """Scores and logits are capped, every second layer sees a window, branches end with norms."""

    activations = GELU_TANH
    names = BranchNames(
        before_attention="input_layernorm",
        after_attention="post_attention_layernorm",
        before_mlp="pre_feedforward_layernorm",
        after_mlp="post_feedforward_layernorm",
    )

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.score_cap = self.attention_terms(config, self.facts).soft_cap
        self.logit_cap = optional_number(config, "final_logit_softcapping")
        """Logits become cap * tanh(logit / cap)."""

    def attention_terms(self, config: Mapping[str, Any], facts: DecoderConfig) -> AttentionTerms:  # noqa: ARG002
        return AttentionTerms(
            scale=attention_scale(config), soft_cap=optional_number(config, "attn_logit_softcapping")
        )

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        return pattern_windows(config, facts, period=2)

    def kv_layers(self) -> list[KVSpec]:
        return [
            structs.replace(spec, has_plain_softmax=self.score_cap is None) for spec in super().kv_layers()
        ]

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        logits_SV = super().logits(hidden_SE)
        if self.logit_cap is None:
            return logits_SV
        return by_rows(torch.tanh_, logits_SV.div_(self.logit_cap)).mul_(self.logit_cap)


def pattern_windows(config: Mapping[str, Any], facts: DecoderConfig, period: int) -> list[int | None]:
    """Where the config lists no layer_types, all but each `period`-th layer see a window."""
    default = every_nth_full(facts.num_layers, period)
    return windows_of(layer_types(config, facts.num_layers, default), facts)


def attention_scale(config: Mapping[str, Any]) -> float:
    """What scores are multiplied with."""
    return float(read_number(config, "query_pre_attn_scalar", 256.0) ** -0.5)


def optional_number(config: Mapping[str, Any], name: str) -> float | None:
    """None where the config has no such entry."""
    return None if config.get(name) is None else read_number(config, name, 1.0)
