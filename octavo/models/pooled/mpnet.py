"""MPNet: BERT whose heads also score the distance between two tokens, by one table for all layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.layers.relative import DistanceBias
from octavo.layers.slot import WeightSlot
from octavo.models.pooled.bert import BertModel, LayerNames
from octavo.models.pooled.encoder_config import EncoderConfig
from octavo.models.pooled.heads import DenseNames
from octavo.ops.paged_plain import AttentionTerms

NUM_BUCKETS, MAX_DISTANCE = 32, 128
"""Of all MPNets: the first is in configs and may not be another, the second is in none."""


class MPNetModel(BertModel):
    prefix = "mpnet."
    names = LayerNames(
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        out="attention.attn.o",
        attention_norm="attention.LayerNorm",
    )
    head_names = DenseNames(dense="classifier.dense", out="classifier.out_proj")

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        stated = config.get("relative_attention_num_buckets", NUM_BUCKETS)
        if stated != NUM_BUCKETS:
            raise ModelFileError(
                f"relative_attention_num_buckets is {str(stated)[:40]}; MPNet computes with {NUM_BUCKETS}."
            )
        return EncoderConfig.from_config({**config, "type_vocab_size": 0})

    def make_terms(
        self,
        config: Mapping[str, Any],  # noqa: ARG002
        facts: EncoderConfig,
        placement: Placement,
    ) -> Sequence[AttentionTerms]:
        self.relative = DistanceBias(
            NUM_BUCKETS, facts.num_heads, max_distance=MAX_DISTANCE, placement=placement
        )
        return [AttentionTerms(scale=facts.head_dim**-0.5, bias=self.relative.forward)] * facts.num_layers

    def weight_slots(self) -> list[WeightSlot]:
        return [*super().weight_slots(), *self.relative.slots("encoder.relative_attention_bias")]
