"""Bamba: most layers are Mamba-2, a few attend with a part of each head rotated; Llama's MLP in all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.mamba2 import GatedNorm, Mamba2
from octavo.layers.mlp import GatedMLP, MLPNames
from octavo.layers.placement import Placement
from octavo.layers.rope import rotation_table
from octavo.models.blocks.hybrid_decoder import HybridDecoder, HybridLayer, Layer
from octavo.models.decoder_config import DecoderConfig
from octavo.models.mamba2_config import read_mamba2

MLP_NAMES = MLPNames(own="feed_forward")
NORM_NAMES = ("input_layernorm", "pre_ff_layernorm")


class BambaForCausalLM(HybridDecoder):
    norm_name = "model.final_layernorm"

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config({"partial_rotary_factor": 0.5, **config}, may_be_partial=True)

    def make_layers(self, config: Mapping[str, Any], placement: Placement) -> list[Layer]:
        facts = self.facts
        attends = _attention_layers(config, facts.num_layers)
        rotation_PD = rotation_table(facts.rope, placement)
        shape = read_mamba2(config)
        has_bias = bool(config.get("mamba_proj_bias"))
        heads = HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_kv_heads, head_dim=facts.head_dim)
        layers: list[Layer] = []
        for index in range(facts.num_layers):
            num_before = sum(other < index for other in attends)
            mixer: SelfAttention | Mamba2
            if index in attends:
                mixer = SelfAttention(
                    num_before,
                    facts.hidden_size,
                    heads,
                    has_qkv_bias=facts.attention_bias,
                    has_out_bias=facts.attention_bias,
                    rotation_PD=rotation_PD,
                    placement=placement,
                )
            else:
                mixer = Mamba2(
                    index - num_before,
                    facts.hidden_size,
                    shape,
                    has_bias=has_bias,
                    has_out_bias=has_bias,
                    has_conv_bias=config.get("mamba_conv_bias") is not False,
                    norm=GatedNorm(epsilon=facts.rms_norm_eps),
                    placement=placement,
                )
            mlp = GatedMLP(
                facts.hidden_size,
                facts.intermediate_size,
                bias=facts.mlp_bias,
                names=MLP_NAMES,
                placement=placement,
            )
            layers.append(HybridLayer(mixer, mlp, facts, norm_names=NORM_NAMES, placement=placement))
        return layers


def _attention_layers(config: Mapping[str, Any], num_layers: int) -> set[int]:
    indices = config.get("attn_layer_indices") or []
    if not isinstance(indices, list) or any(
        type(index) is not int or not 0 <= index < num_layers for index in indices
    ):
        raise ModelFileError(
            f"attn_layer_indices is {str(indices)[:40]}; it must be numbers from 0 to {num_layers - 1}."
        )
    return set(indices)
