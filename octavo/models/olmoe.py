"""OLMoE: experts; queries and keys are normalised over all heads, norms stand before the branches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.layers.mlp import MLP
from octavo.models.blocks.branch import BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.blocks.mixture import make_mixture
from octavo.models.decoder_config import DecoderConfig, read_number
from octavo.models.moe_config import MoEConfig
from octavo.models.olmo import Olmo2ForCausalLM


class OlmoeForCausalLM(Olmo2ForCausalLM):
    names = BranchNames(before_attention="input_layernorm", before_mlp="post_attention_layernorm")

    @classmethod
    def read_clip(cls, config: Mapping[str, Any]) -> float | None:
        return None if config.get("clip_qkv") is None else read_number(config, "clip_qkv", 0.0)

    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        moe = MoEConfig.from_config(config, inner="intermediate_size")
        is_normed = bool(config.get("norm_topk_prob"))
        return make_mixture(moe, facts.hidden_size, is_normed=is_normed, placement=place.placement)
