"""Mixtral: Mistral with experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.layers.expert_tensors import OneByOne
from octavo.layers.mlp import MLP
from octavo.layers.moe import MixtureNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.blocks.mixture import make_mixture
from octavo.models.decoder_config import DecoderConfig
from octavo.models.llama import MistralForCausalLM
from octavo.models.moe_config import MoEConfig

NAMES = MixtureNames(own="block_sparse_moe", experts=OneByOne(gate="w1", up="w3", down="w2"))


class MixtralForCausalLM(MistralForCausalLM):
    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        moe = MoEConfig.from_config(config, inner="intermediate_size")
        return make_mixture(moe, facts.hidden_size, is_normed=True, names=NAMES, placement=place.placement)
