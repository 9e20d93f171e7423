"""Falcon: branches side by side, few KV heads, one matrix for q, k and v.

Falcon RW is older: linear biases, a KV head for each query head, branches in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from octavo.layers.linear_biases import bias_slopes
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.layer_norm_decoder import (
    LayerNormDecoder,
    Make,
    PartNames,
    plain_facts,
    read_activation,
)
from octavo.models.blocks.normed_layer import Flow, NormedLayer
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
NAMES_OF_TWO_NORMS = replace(NAMES, attention_norm="ln_attn", mlp_norm="ln_mlp")


class FalconForCausalLM(LayerNormDecoder):
    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        is_new, has_bias = bool(config.get("new_decoder_architecture")), bool(config.get("bias"))
        heads = config.get("num_attention_heads")
        if is_new:
            kv_heads = config.get("num_key_value_heads") or heads
        else:
            kv_heads = 1 if config.get("multi_query", True) else heads
        is_parallel = is_new or config.get("parallel_attn", True)
        has_biases = bool(config.get("alibi"))
        has_two_norms = not is_parallel or (is_new and config.get("num_ln_in_parallel_attn") in (None, 2))
        facts = plain_facts(
            config,
            num_key_value_heads=kv_heads,
            intermediate_size=config.get("intermediate_size") or 4 * int(config.get("hidden_size") or 0),
            tie_word_embeddings=config.get("tie_word_embeddings", True),
        )
        return Make(
            facts=facts,
            names=NAMES_OF_TWO_NORMS if is_parallel and has_two_norms else NAMES,
            epsilon=read_number(config, "layer_norm_epsilon", 1e-5),
            flow=Flow.PARALLEL if is_parallel else Flow.NORM_BEFORE,
            activation=read_activation(config, "activation", "gelu"),
            has_qkv_bias=has_bias,
            has_out_bias=has_bias,
            has_mlp_bias=has_bias,
            has_mlp_norm=has_two_norms,
            rotates=not has_biases,
            bias_slopes=_rounded_slopes(facts.num_heads) if has_biases else None,
            rounds_biases=has_biases,
        )

    def layer_slots(self, block: NormedLayer, name: str) -> list[WeightSlot]:
        """The rows of query_key_value come KV head by KV head."""
        facts = self.make.facts
        order_R = queries_keys_values(facts.num_heads, facts.num_kv_heads, facts.head_dim)
        return [
            replace(slot, order_R=order_R) if ".query_key_value." in slot.name else slot
            for slot in super().layer_slots(block, name)
        ]


def _rounded_slopes(num_heads: int) -> tuple[float, ...]:
    return tuple(torch.tensor(bias_slopes(num_heads)).bfloat16().tolist())
