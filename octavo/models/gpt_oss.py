"""GPT-OSS: experts with biases and a clamped gate; every second layer sees a window; heads have sinks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import structs
from torch import nn

from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.expert_tensors import StackedColumns
from octavo.layers.mlp import MLP
from octavo.layers.moe import MixtureNames, MixtureOfExperts
from octavo.layers.router import Router
from octavo.messages.kv import KVSpec
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import DecoderConfig, read_number
from octavo.models.layer_types import every_nth_full, layer_types, windows_of
from octavo.models.llama import LlamaForCausalLM
from octavo.models.moe_config import MoEConfig
from octavo.ops.experts import SwiGLU
from octavo.ops.paged_plain import AttentionTerms
from octavo.ops.routing import Routing

NAMES = BranchNames(before_attention="input_layernorm", before_mlp="post_attention_layernorm")
EXPERT_NAMES = MixtureNames(router="router", experts=StackedColumns())


class GptOssForCausalLM(LlamaForCausalLM):
    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config({"attention_bias": True, **config})

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        types = layer_types(config, facts.num_layers, every_nth_full(facts.num_layers, 2))
        return windows_of(types, facts)

    def make_layer(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> BranchLayer:
        sinks_H = nn.Parameter(place.placement.empty(facts.num_heads).float(), requires_grad=False)
        attention = SelfAttention(
            place.index,
            facts.hidden_size,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_kv_heads, head_dim=facts.head_dim),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            terms=AttentionTerms(scale=facts.head_dim**-0.5, window=place.window, sinks_H=sinks_H),
            rotation_PD=place.rotation_PD,
            placement=place.placement,
        )
        mlp = self.make_mlp(config, facts, place)
        return BranchLayer(attention, mlp, facts, NAMES, placement=place.placement)

    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        moe = MoEConfig.from_config(config, inner="intermediate_size")
        gate = SwiGLU(
            alpha=read_number(config, "swiglu_alpha", 1.702),
            limit=read_number(config, "swiglu_limit", 7.0),
            offset=1.0,
        )
        router = Router(
            facts.hidden_size,
            moe.num_experts,
            Routing(num_chosen=moe.num_chosen),
            has_bias=True,
            placement=place.placement,
        )
        shape = moe.shape(facts.hidden_size, has_bias=True, gate=gate)
        return MixtureOfExperts(router, shape, names=EXPERT_NAMES, placement=place.placement)

    def kv_layers(self) -> list[KVSpec]:
        return [structs.replace(spec, has_plain_softmax=False) for spec in super().kv_layers()]
