"""OLMoE: experts; queries and keys are normalised over all heads, norms stand before the branches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.mlp import MLP
from octavo.models.blocks.branch import BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.blocks.mixture import make_mixture
from octavo.models.decoder_config import DecoderConfig
from octavo.models.moe_config import MoEConfig
from octavo.models.olmo import Olmo2ForCausalLM


class OlmoeForCausalLM(Olmo2ForCausalLM):
    names = BranchNames(before_attention="input_layernorm", before_mlp="post_attention_layernorm")

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        if config.get("clip_qkv") is not None:
            raise ModelFileError(
                f"The model's config has clip_qkv {config['clip_qkv']!r}: queries, keys and values are "
                "clipped; only OLMoE models without it are supported."
            )
        return super().read_config(config)

    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        moe = MoEConfig.from_config(config, inner="intermediate_size")
        is_normed = bool(config.get("norm_topk_prob"))
        return make_mixture(moe, facts.hidden_size, is_normed=is_normed, placement=place.placement)
