"""Gemma 1 and 2: scaled embeddings, norms by 1 + w, a gelu gate; 2 adds soft caps, windows, more norms.

T tokens, S positions that want logits, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.embedding import Embedding, TiedEmbedding
from octavo.layers.linear import Linear
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.rope import rotation_table
from octavo.layers.slot import WeightSlot
from octavo.messages.kv import KVKind, KVSpec
from octavo.models.blocks.sandwich import NORM_OFFSET, LayerTerms, SandwichLayer
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import DecoderConfig
from octavo.models.layer_types import every_nth_full, layer_types, windows_of
from octavo.ops.paged_plain import AttentionTerms

GELU_TANH = ("gelu_pytorch_tanh", "gelu_tanh")


class GemmaForCausalLM(nn.Module):
    """Decoder layers between a scaled embedding and the head: one matrix, unless the config says no."""

    activations: ClassVar[tuple[str, ...]] = (*GELU_TANH, "gelu")
    """The oldest configs say gelu and mean its tanh form."""
    has_head_norms: ClassVar[bool] = False
    has_post_norms: ClassVar[bool] = False

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__()
        if config.get("use_bidirectional_attention"):
            raise ModelFileError(
                "The model's config has use_bidirectional_attention: tokens see those after them, so it "
                "cannot generate text."
            )
        config = {"hidden_act": GELU_TANH[0], **config}
        facts = self.read_facts(config)
        width = facts.hidden_size
        self.vocab_size = facts.vocab_size
        self.num_heads = facts.num_heads
        self.hidden_size = width
        self.facts = facts
        self.is_tied = config.get("tie_word_embeddings") in (None, True)
        self.embedding_scale = torch.tensor(width**0.5, dtype=placement.dtype).item()
        """Rounded to the model's type, as in training."""
        self.head = Linear(width, [facts.vocab_size], placement=placement)
        self.embedding = (
            TiedEmbedding(self.head)
            if self.is_tied
            else Embedding(facts.vocab_size, width, placement=placement)
        )
        self.logit_cap = self.read_logit_cap(config)
        self.terms = self.layer_terms(config, facts, placement)
        self.blocks = [
            SandwichLayer(
                index,
                facts,
                terms,
                has_head_norms=self.has_head_norms,
                has_post_norms=self.has_post_norms,
                placement=placement,
            )
            for index, terms in enumerate(self.terms)
        ]
        self.layers = nn.ModuleList(self.blocks)
        self.norm = RMSNorm(width, epsilon=facts.rms_norm_eps, offset=NORM_OFFSET, placement=placement)

    def read_facts(self, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config(config, activations=self.activations)

    def read_logit_cap(self, config: Mapping[str, Any]) -> float | None:  # noqa: ARG002
        """Logits become cap * tanh(logit / cap)."""
        return None

    def layer_terms(
        self,
        config: Mapping[str, Any],  # noqa: ARG002
        facts: DecoderConfig,
        placement: Placement,
    ) -> list[LayerTerms]:
        rotation_PD = rotation_table(facts.rope, placement)
        terms = AttentionTerms(scale=facts.head_dim**-0.5)
        return [LayerTerms(attention=terms, rotation_PD=rotation_PD)] * facts.num_layers

    def weight_slots(self) -> list[WeightSlot]:
        slots = self.embedding.slots("model.embed_tokens")
        for layer, block in enumerate(self.blocks):
            slots += block.slots(f"model.layers.{layer}")
        slots += self.norm.slots("model.norm")
        return slots if self.is_tied else slots + self.head.slots("lm_head")

    def kv_layers(self) -> list[KVSpec]:
        attention = [terms.attention for terms in self.terms]
        return [
            KVSpec(
                kind=KVKind.FULL if terms.window is None else KVKind.SLIDING_WINDOW,
                num_kv_heads=self.facts.num_kv_heads,
                head_dim=self.facts.head_dim,
                dtype_bytes=self.head.weight.element_size(),
                window=terms.window,
                has_plain_softmax=terms.soft_cap is None,
            )
            for terms in attention
        ]

    def embed(self, token_ids_T: torch.Tensor) -> torch.Tensor:
        return self.embedding.forward(token_ids_T)

    def forward(self, batch: ModelInput) -> torch.Tensor:
        given_TE = batch.inputs_TE
        x_TE = self.embed(batch.token_ids_T) if given_TE is None else given_TE
        stream = Residual(x_TE.mul_(self.embedding_scale))
        for block in self.blocks:
            stream = block.forward(stream, batch.attend)
        return self.norm.add(*stream)[1]

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        logits_SV = self.head.forward(hidden_SE)
        if self.logit_cap is None:
            return logits_SV
        return logits_SV.div_(self.logit_cap).tanh_().mul_(self.logit_cap)


class Gemma2ForCausalLM(GemmaForCausalLM):
    """Scores and logits are capped, every second layer sees a window, branches end with norms."""

    activations = GELU_TANH
    has_post_norms = True

    def read_logit_cap(self, config: Mapping[str, Any]) -> float | None:
        return positive(config, "final_logit_softcapping")

    def layer_terms(
        self, config: Mapping[str, Any], facts: DecoderConfig, placement: Placement
    ) -> list[LayerTerms]:
        rotation_PD = rotation_table(facts.rope, placement)
        scale = attention_scale(config)
        soft_cap = positive(config, "attn_logit_softcapping")
        return [
            LayerTerms(
                attention=AttentionTerms(scale=scale, window=window, soft_cap=soft_cap),
                rotation_PD=rotation_PD,
            )
            for window in layer_windows(config, facts, period=2)
        ]


def layer_windows(config: Mapping[str, Any], facts: DecoderConfig, period: int) -> list[int | None]:
    """Where the config lists no layer_types, all but each `period`-th layer see a window."""
    default = every_nth_full(facts.num_layers, period)
    return windows_of(layer_types(config, facts.num_layers, default), facts)


def attention_scale(config: Mapping[str, Any]) -> float:
    """What scores are multiplied with."""
    return float((positive(config, "query_pre_attn_scalar") or 256.0) ** -0.5)


def positive(config: Mapping[str, Any], name: str) -> float | None:
    """None where the config has no such entry. Raises ModelFileError."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 < value < float("inf"):
        raise ModelFileError(f"The model's {name} is {str(value)[:40]}; it must be a number over 0.")
    return float(value)
