"""BLOOM: linear biases in the place of positions, a norm behind the embedding, q, k and v head by head.

T tokens, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.linear_biases import bias_slopes
from octavo.layers.norm import LayerNorm
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.layer_norm_decoder import LayerNormDecoder, Make, PartNames, plain_facts
from octavo.models.blocks.normed_layer import NormedLayer
from octavo.models.blocks.row_orders import queries_keys_values
from octavo.models.decoder_config import read_number

NAMES = PartNames(
    embedding="transformer.word_embeddings",
    layers="transformer.h",
    norm="transformer.ln_f",
    qkv=("self_attention.query_key_value",),
    out="self_attention.dense",
    up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
)


class BloomForCausalLM(LayerNormDecoder):
    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.embedding_norm = LayerNorm(self.hidden_size, epsilon=self.make.epsilon, placement=placement)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        if config.get("apply_residual_connection_post_layernorm"):
            raise ModelFileError(
                "The model's config has apply_residual_connection_post_layernorm: its residuals begin behind "
                "the norms. Only those that begin before them are supported."
            )
        inner = 4 * int(config.get("hidden_size") or 0)
        tied = {"tie_word_embeddings": config.get("tie_word_embeddings", True)}
        facts = plain_facts(config, intermediate_size=inner, **tied)
        return Make(
            facts=facts,
            names=NAMES,
            epsilon=read_number(config, "layer_norm_epsilon", 1e-5),
            activation="gelu_pytorch_tanh",
            has_qkv_bias=True,
            has_out_bias=True,
            has_mlp_bias=True,
            rotates=False,
            bias_slopes=bias_slopes(facts.num_heads),
        )

    def first_inputs(self, x_TE: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return self.embedding_norm.forward(x_TE)

    def weight_slots(self) -> list[WeightSlot]:
        """BigScience's own files have the names without what they begin with here."""
        norm = self.embedding_norm.slots("transformer.word_embeddings_layernorm")
        slots = [*super().weight_slots(), *norm]
        return [replace(slot, older_name=slot.name.removeprefix("transformer.")) for slot in slots]

    def layer_slots(self, block: NormedLayer, name: str) -> list[WeightSlot]:
        """The rows of query_key_value come head by head."""
        facts = self.make.facts
        order_R = queries_keys_values(facts.num_heads, facts.num_heads, facts.head_dim)
        return [
            replace(slot, order_R=order_R) if ".query_key_value." in slot.name else slot
            for slot in super().layer_slots(block, name)
        ]
