"""GLM-4.5 and 4.6: experts routed as DeepSeek's, ordinary attention with a part of each head rotated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from octavo.layers.attention import HeadNorms, HeadShape, SelfAttention
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import DecoderConfig
from octavo.models.group_routed import GroupRoutedForCausalLM

NORMS = BranchNames(before_attention="input_layernorm", before_mlp="post_attention_layernorm")


class Glm4MoeForCausalLM(GroupRoutedForCausalLM):
    defaults: ClassVar[Mapping[str, Any]] = {
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "partial_rotary_factor": 0.5,
    }

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config(config, may_be_partial=True)

    def make_layer(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> BranchLayer:
        attention = SelfAttention(
            place.index,
            facts.hidden_size,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_kv_heads, head_dim=facts.head_dim),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=False,
            norms=HeadNorms(epsilon=facts.rms_norm_eps) if config.get("use_qk_norm") else None,
            rotation_PD=place.rotation_PD,
            placement=place.placement,
        )
        mlp = self.make_mlp(config, facts, place)
        return BranchLayer(attention, mlp, facts, NORMS, placement=place.placement)
