"""GPT-J: branches side by side behind one norm; a part of each head is rotated, in neighbouring pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.layer_norm_decoder import (
    LayerNormDecoder,
    Make,
    PartNames,
    plain_facts,
    read_activation,
)
from octavo.models.blocks.normed_layer import Flow
from octavo.models.blocks.row_orders import halves_of_pairs
from octavo.models.decoder_config import read_number

NAMES = PartNames(
    embedding="transformer.wte",
    layers="transformer.h",
    norm="transformer.ln_f",
    attention_norm="ln_1",
    qkv=("attn.q_proj", "attn.k_proj", "attn.v_proj"),
    out="attn.out_proj",
    up=("mlp.fc_in",),
    down="mlp.fc_out",
)


class GPTJForCausalLM(LayerNormDecoder):
    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        inner = config.get("intermediate_size") or 4 * int(config.get("hidden_size") or 0)
        facts = plain_facts(config, intermediate_size=inner)
        rotated, width = config.get("rotary_dim", 64), facts.head_dim
        if type(rotated) is not int or not 2 <= rotated <= width or rotated % 2:
            raise ModelFileError(f"rotary_dim is {rotated!r}; it must be even, from 2 to head_dim {width}.")
        return Make(
            facts=replace(facts, rope=replace(facts.rope, head_dim=rotated)),
            names=NAMES,
            epsilon=read_number(config, "layer_norm_epsilon", 1e-5),
            flow=Flow.PARALLEL,
            activation=read_activation(config, "activation_function", "gelu_new"),
            has_qkv_bias=False,
            has_out_bias=False,
            has_mlp_bias=True,
            has_head_bias=True,
            has_mlp_norm=False,
        )

    def weight_slots(self) -> list[WeightSlot]:
        facts = self.make.facts
        return [
            replace(slot, order_R=halves_of_pairs(len(slot.target), facts.head_dim, facts.rope.head_dim))
            if slot.name.endswith((".q_proj.weight", ".k_proj.weight"))
            else slot
            for slot in super().weight_slots()
        ]
