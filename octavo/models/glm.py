"""GLM-4: a part of each head is rotated, in neighbouring pairs; GLM-4-0414 has norms behind the branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.mlp import MLPNames
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.blocks.row_orders import halves_of_pairs
from octavo.models.decoder_config import DecoderConfig
from octavo.models.llama import LlamaForCausalLM

DEFAULT_PART = 0.5
"""Where a config says nothing: this part of each head is rotated."""


class GlmForCausalLM(LlamaForCausalLM):
    mlp_names: ClassVar[MLPNames] = MLPNames(gate_up=("gate_up_proj",))
    names: ClassVar[BranchNames] = BranchNames(
        before_attention="input_layernorm",
        before_mlp="post_attention_layernorm",
    )

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config(
            {"partial_rotary_factor": DEFAULT_PART, **config, "mlp_bias": False}, may_be_partial=True
        )

    def make_layer(
        self,
        config: Mapping[str, Any],
        facts: DecoderConfig,
        place: LayerPlace,
    ) -> BranchLayer:
        attention = SelfAttention(
            place.index,
            facts.hidden_size,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_kv_heads, head_dim=facts.head_dim),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=False,
            rotation_PD=place.rotation_PD,
            placement=place.placement,
        )
        mlp = self.make_mlp(config, facts, place)
        return BranchLayer(attention, mlp, facts, self.names, placement=place.placement)

    def weight_slots(self) -> list[WeightSlot]:
        """Rotated pairs are neighbours in the checkpoint."""
        return [
            replace(
                slot, order_R=halves_of_pairs(len(slot.target), self.facts.head_dim, self.facts.rope.head_dim)
            )
            if ".q_proj." in slot.name or ".k_proj." in slot.name
            else slot
            for slot in super().weight_slots()
        ]


class Glm4ForCausalLM(GlmForCausalLM):
    names = BranchNames(
        before_attention="input_layernorm",
        after_attention="post_self_attn_layernorm",
        before_mlp="post_attention_layernorm",
        after_mlp="post_mlp_layernorm",
    )
