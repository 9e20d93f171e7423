"""Phi-3, 3.5 and 4: Llama's shape in fused matrices; long texts by longrope, a part of each head rotated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from octavo.layers.mlp import MLPNames
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.decoder import DecoderLayer, LayerPlace
from octavo.models.decoder_config import DecoderConfig
from octavo.models.llama import MistralForCausalLM

ORIGINAL_MAX_POSITIONS = 4096
"""Where a config does not say it."""


class FusedLayer(DecoderLayer):
    """Its checkpoint holds queries, keys and values as one matrix."""

    def slots(self, name: str) -> list[WeightSlot]:
        return [
            *self.attention_norm.slots(f"{name}.input_layernorm"),
            *self.attention.slots(f"{name}.self_attn", ("qkv_proj",)),
            *self.mlp_norm.slots(f"{name}.post_attention_layernorm"),
            *self.mlp.slots(name),
        ]


class Phi3ForCausalLM(MistralForCausalLM):
    mlp_names: ClassVar[MLPNames] = MLPNames(gate_up=("gate_up_proj",))

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config(_modern(config), may_be_partial=True)

    def make_layer(
        self,
        config: Mapping[str, Any],
        facts: DecoderConfig,
        place: LayerPlace,
    ) -> DecoderLayer:
        return FusedLayer(
            place.index,
            self.make_mlp(config, facts, place),
            facts,
            window=place.window,
            has_head_norms=False,
            has_qkv_bias=False,
            rotation_PD=place.rotation_PD,
            placement=place.placement,
        )


def _modern(config: Mapping[str, Any]) -> dict[str, Any]:
    """What its first checkpoints call su or yarn is longrope. There are no biases whatever it says."""
    name = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    rope = dict(config.get(name) or {})
    kind = rope.get("rope_type") or rope.get("type") or "default"
    rope["rope_type"] = "longrope" if kind in ("su", "yarn") else kind
    original = config.get("original_max_position_embeddings") or ORIGINAL_MAX_POSITIONS
    return {
        **config,
        name: rope,
        "original_max_position_embeddings": original,
        "attention_bias": False,
        "mlp_bias": False,
    }
