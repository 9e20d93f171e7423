"""Qwen3-Next: three layers in four are Gated DeltaNets, the fourth attends behind a gate; experts in most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.attention import HeadNorms, HeadShape, SelfAttention
from octavo.layers.gated_delta_net import DeltaShape, GatedDeltaNet
from octavo.layers.mlp import MLP, GatedMLP
from octavo.layers.placement import Placement
from octavo.layers.rope import rotation_table
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.hybrid_decoder import HybridDecoder, HybridLayer, Layer
from octavo.models.decoder_config import MAX_WIDTH, DecoderConfig, read_count
from octavo.models.mamba2_config import MAX_TAPS
from octavo.models.qwen_moe import Qwen2MoeForCausalLM, has_experts, qwen_mixture

FULL, LINEAR = "full_attention", "linear_attention"


class Qwen3NextForCausalLM(HybridDecoder):
    norm_offset = 1.0

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        config = {"partial_rotary_factor": 0.25, "head_dim": 256, **config, "mlp_bias": False}
        return DecoderConfig.from_config(config, may_be_partial=True)

    def make_layers(self, config: Mapping[str, Any], placement: Placement) -> list[Layer]:
        kinds = _layer_types(config, self.facts.num_layers)
        rotation_PD, shape = rotation_table(self.facts.rope, placement), read_delta(config)
        layers: list[Layer] = []
        for index, kind in enumerate(kinds):
            number = kinds[:index].count(kind)
            mixer = (
                self._attention(number, rotation_PD, placement)
                if kind == FULL
                else GatedDeltaNet(
                    number,
                    self.facts.hidden_size,
                    shape,
                    epsilon=self.facts.rms_norm_eps,
                    placement=placement,
                )
            )
            layers.append(
                HybridLayer(
                    mixer,
                    self._mlp(index, config, placement),
                    self.facts,
                    recurrent_name="linear_attn",
                    norm_offset=self.norm_offset,
                    placement=placement,
                )
            )
        return layers

    def _attention(self, number: int, rotation_PD: torch.Tensor, placement: Placement) -> SelfAttention:
        facts = self.facts
        return SelfAttention(
            number,
            facts.hidden_size,
            HeadShape(
                num_heads=facts.num_heads,
                num_kv_heads=facts.num_kv_heads,
                head_dim=facts.head_dim,
                is_gated=True,
            ),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            norms=HeadNorms(epsilon=facts.rms_norm_eps, offset=self.norm_offset),
            rotation_PD=rotation_PD,
            placement=placement,
        )

    def _mlp(self, index: int, config: Mapping[str, Any], placement: Placement) -> MLP:
        facts = self.facts
        if not has_experts(config, index):
            return GatedMLP(facts.hidden_size, facts.intermediate_size, bias=False, placement=placement)
        shared = GatedMLP(
            facts.hidden_size,
            read_count(config, "shared_expert_intermediate_size", MAX_WIDTH),
            bias=False,
            names=Qwen2MoeForCausalLM.shared_names,
            placement=placement,
        )
        return qwen_mixture({"norm_topk_prob": True, **config}, facts, placement, shared)

    def weight_slots(self) -> list[WeightSlot]:
        """The rows of q_proj come head by head, queries before the gate; here all gates come first."""
        width = self.facts.head_dim
        rows = torch.arange(2 * self.facts.num_heads * width).view(-1, 2, width)
        order_R = rows.flip(1).transpose(0, 1).flatten()
        return [
            replace(slot, order_R=order_R) if ".q_proj." in slot.name else slot
            for slot in super().weight_slots()
        ]


def read_delta(config: Mapping[str, Any]) -> DeltaShape:
    """Raises ModelFileError with both numbers where two disagree."""
    num_heads = read_count(config, "linear_num_value_heads", MAX_WIDTH)
    num_groups = read_count(config, "linear_num_key_heads", MAX_WIDTH)
    if num_heads % num_groups:
        raise ModelFileError(
            f"linear_num_value_heads {num_heads} is not a multiple of linear_num_key_heads {num_groups}."
        )
    num_taps = read_count(config, "linear_conv_kernel_dim", MAX_TAPS, 4)
    if num_taps < 2:
        raise ModelFileError(f"linear_conv_kernel_dim is {num_taps}; it must be at least 2.")
    return DeltaShape(
        num_heads=num_heads,
        value_dim=read_count(config, "linear_value_head_dim", MAX_WIDTH),
        num_groups=num_groups,
        key_dim=read_count(config, "linear_key_head_dim", MAX_WIDTH),
        num_taps=num_taps,
    )


def _layer_types(config: Mapping[str, Any], num_layers: int) -> list[str]:
    types = config.get("layer_types")
    if types is None:
        period = read_count(config, "full_attention_interval", 2**16, 4)
        return [LINEAR if (index + 1) % period else FULL for index in range(num_layers)]
    if not isinstance(types, list) or len(types) != num_layers:
        stated = len(types) if isinstance(types, list) else str(types)[:40]
        raise ModelFileError(f"The model's config lists {stated} layer_types for {num_layers} layers.")
    unknown = [kind for kind in types if kind not in (FULL, LINEAR)]
    if unknown:
        raise ModelFileError(
            f"The model's layer_types name {str(unknown[0])[:40]!r}; {FULL} and {LINEAR} are supported."
        )
    return types
