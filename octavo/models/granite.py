"""Granite 3: Llama's shape with factors for embeddings, scores, branches and logits; with experts, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.expert_tensors import StackedHalves
from octavo.layers.mlp import MLP
from octavo.layers.moe import MixtureNames
from octavo.layers.placement import Placement
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.blocks.mixture import make_mixture
from octavo.models.decoder_config import DecoderConfig, read_number
from octavo.models.llama import LlamaForCausalLM
from octavo.models.moe_config import MoEConfig
from octavo.ops.paged_plain import AttentionTerms

NAMES = BranchNames(before_attention="input_layernorm", before_mlp="post_attention_layernorm")
EXPERT_NAMES = MixtureNames(
    own="block_sparse_moe",
    router="router.layer",
    experts=StackedHalves(gate_up="input_linear.weight", down="output_linear.weight"),
)


class GraniteForCausalLM(LlamaForCausalLM):
    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.embedding_factor = read_number(config, "embedding_multiplier", 1.0)
        self.logits_divisor = read_number(config, "logits_scaling", 1.0)

    def make_layer(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> BranchLayer:
        attention = SelfAttention(
            place.index,
            facts.hidden_size,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_kv_heads, head_dim=facts.head_dim),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            terms=AttentionTerms(scale=read_number(config, "attention_multiplier", 1.0)),
            rotation_PD=place.rotation_PD,
            placement=place.placement,
        )
        factor = read_number(config, "residual_multiplier", 1.0)
        mlp = self.make_mlp(config, facts, place)
        return BranchLayer(attention, mlp, facts, NAMES, factor=factor, placement=place.placement)

    def first_inputs(self, x_TE: torch.Tensor) -> torch.Tensor:
        return x_TE * self.embedding_factor

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        return super().logits(hidden_SE) / self.logits_divisor


class GraniteMoeForCausalLM(GraniteForCausalLM):
    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        moe = MoEConfig.from_config(config, inner="intermediate_size")
        return make_mixture(
            moe, facts.hidden_size, is_normed=True, names=EXPERT_NAMES, placement=place.placement
        )
