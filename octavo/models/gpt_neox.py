"""GPT-NeoX and Pythia: branches side by side, a part of each head rotated, q, k and v head by head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

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
    embedding="gpt_neox.embed_in",
    layers="gpt_neox.layers",
    norm="gpt_neox.final_layer_norm",
    head="embed_out",
    qkv=("attention.query_key_value",),
    out="attention.dense",
    up=("mlp.dense_h_to_4h",),
    down="mlp.dense_4h_to_h",
)


class GPTNeoXForCausalLM(LayerNormDecoder):
    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        has_bias = bool(config.get("attention_bias", True))
        rope = {
            "rope_theta": config.get("rotary_emb_base"),
            "partial_rotary_factor": config.get("rotary_pct") or 0.25,
        }
        is_parallel = config.get("use_parallel_residual", True)
        return Make(
            facts=plain_facts({**rope, **config}),
            names=NAMES,
            epsilon=read_number(config, "layer_norm_eps", 1e-5),
            flow=Flow.PARALLEL if is_parallel else Flow.NORM_BEFORE,
            activation=read_activation(config, "hidden_act", "gelu"),
            has_qkv_bias=has_bias,
            has_out_bias=has_bias,
            has_mlp_bias=True,
        )

    def layer_slots(self, block: NormedLayer, name: str) -> list[WeightSlot]:
        """The rows of query_key_value come head by head."""
        facts = self.make.facts
        order_R = queries_keys_values(facts.num_heads, facts.num_kv_heads, facts.head_dim)
        return [
            replace(slot, order_R=order_R) if ".query_key_value." in slot.name else slot
            for slot in super().layer_slots(block, name)
        ]
