"""Mixtral: Mistral with experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.layers.experts import OneByOne
from octavo.layers.mlp import MLP
from octavo.layers.moe import MixtureNames, MixtureOfExperts
from octavo.layers.router import Router
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import DecoderConfig
from octavo.models.llama import MistralForCausalLM
from octavo.models.moe_config import MoEConfig
from octavo.ops.routing import Routing

NAMES = MixtureNames(own="block_sparse_moe", experts=OneByOne(gate="w1", up="w3", down="w2"))


class MixtralForCausalLM(MistralForCausalLM):
    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        moe = MoEConfig.from_config(config, inner="intermediate_size")
        router = Router(
            facts.hidden_size,
            moe.num_experts,
            Routing(num_chosen=moe.num_chosen),
            placement=place.placement,
        )
        return MixtureOfExperts(router, moe.shape(facts.hidden_size), names=NAMES, placement=place.placement)
