"""DeBERTa of versions 2 and 3: BERT that knows no positions, only distances, which meet what tokens say.

R rows of the table of distances, E width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from octavo.base.errors import ModelFileError
from octavo.layers.activations import ACTIVATIONS, Activation
from octavo.layers.embedding import Embedding
from octavo.layers.norm import LayerNorm
from octavo.layers.placement import Placement
from octavo.layers.relative import DisentangledBias, log_bucketed
from octavo.layers.slot import WeightSlot
from octavo.models.pooled.bert import BertModel, LayerNames
from octavo.models.pooled.encoder_config import EncoderConfig
from octavo.models.pooled.heads import DenseHead, DenseNames
from octavo.ops.paged_plain import AttentionTerms
from octavo.weights.encoder_shapes import Distances

NUM_TERMS = 3
"""Of a score: content with content, content with position, position with content."""


class DebertaModel(BertModel):
    prefix = "deberta."
    names = LayerNames(
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
    )

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        rows, width = 2 * Distances.from_config(config).span, self.hidden_size
        self.distances = Embedding(rows, width, placement=placement)
        self.distance_norm = (
            LayerNorm(width, epsilon=self.facts.norm_epsilon, placement=placement)
            if "layer_norm" in str(config.get("norm_rel_ebd")).lower()
            else None
        )

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        _check(config)
        return EncoderConfig.from_config(
            {"layer_norm_eps": 1e-7, **config, "type_vocab_size": config.get("type_vocab_size") or 0}
        )

    def make_terms(
        self, config: Mapping[str, Any], facts: EncoderConfig, placement: Placement
    ) -> Sequence[AttentionTerms]:
        distances = Distances.from_config(config)
        span = distances.span

        def row_of(distances_P: torch.Tensor) -> torch.Tensor:
            known_P = (
                log_bucketed(distances_P, distances.num_buckets, distances.furthest)
                if distances.num_buckets
                else distances_P
            )
            return (known_P + span).clamp(0, 2 * span - 1)

        self.biases = [
            DisentangledBias(2 * span, facts.num_heads, facts.head_dim, row_of=row_of, placement=placement)
            for _ in range(facts.num_layers)
        ]
        self.bias_layers = nn.ModuleList(self.biases)
        scale = (facts.head_dim * NUM_TERMS) ** -0.5
        return [AttentionTerms(scale=scale, bias=bias.forward) for bias in self.biases]

    def verify(self) -> None:
        """The weights are there: every layer projects the distances as it does tokens."""
        distances_RE: torch.Tensor = self.distances.weight_VE
        if self.distance_norm is not None:
            distances_RE = self.distance_norm.forward(distances_RE)
        for block, bias in zip(self.blocks, self.biases, strict=True):
            queries_RE, keys_RE, _ = block.attention.qkv.forward(distances_RE).chunk(3, -1)
            bias.keep(queries_RE, keys_RE, block.attention.layer.terms.scale)

    @classmethod
    def make_head(cls, config: Mapping[str, Any], num_labels: int, placement: Placement) -> DenseHead:
        return DenseHead(
            cls.read_config(config).hidden_size,
            num_labels,
            names=DenseNames(dense="pooler.dense", out="classifier"),
            activation=_pooler_activation(config),
            placement=placement,
        )

    def weight_slots(self) -> list[WeightSlot]:
        norm = self.distance_norm
        return [
            *super().weight_slots(),
            *self.distances.slots("encoder.rel_embeddings"),
            *([] if norm is None else norm.slots("encoder.LayerNorm")),
        ]


def _check(config: Mapping[str, Any]) -> None:
    """Raise ModelFileError for what no DeBERTa of versions 2 and 3 that is in use has, or only a few have."""
    types = config.get("pos_att_type") or []
    types = types.split("|") if isinstance(types, str) else types if isinstance(types, list) else [types]
    wrong = {
        "relative_attention": config.get("relative_attention") is not True,
        "pos_att_type": sorted(str(one).strip().lower() for one in types) != ["c2p", "p2c"],
        "share_att_key": config.get("share_att_key") is not True,
        "conv_kernel_size": bool(config.get("conv_kernel_size")),
        "embedding_size": config.get("embedding_size") not in (None, config.get("hidden_size")),
        "attention_head_size": config.get("attention_head_size") is not None,
    }
    found = next((name for name, is_wrong in wrong.items() if is_wrong), None)
    if found is not None:
        raise ModelFileError(
            f"{found} is {str(config.get(found))[:40]}, which is not supported for this architecture. "
            "Supported are DeBERTas as of version 3: with relative_attention, pos_att_type p2c and c2p and "
            "share_att_key, without convolution, embedding_size or attention_head_size."
        )


def _pooler_activation(config: Mapping[str, Any]) -> Activation:
    name = config.get("pooler_hidden_act") or "gelu"
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ModelFileError(
            f"pooler_hidden_act is {str(name)[:40]!r}; supported are {', '.join(sorted(ACTIVATIONS))}."
        )
    return ACTIVATIONS[name]
