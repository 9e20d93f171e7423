"""DeepSeek V2, V2-Lite, V3 and R1, and Kimi K2, which has V3's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.attention.latents import LatentShape
from octavo.base.errors import ModelFileError
from octavo.layers.latent_attention import LatentAttention
from octavo.layers.placement import Placement
from octavo.layers.rope import score_factor
from octavo.messages.kv import KVKind, KVSpec
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import DecoderConfig, read_count
from octavo.models.llama import LlamaForCausalLM

NAMES = BranchNames(before_attention="input_layernorm", before_mlp="post_attention_layernorm")


class DeepseekV3ForCausalLM(LlamaForCausalLM):
    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.shape = latent_shape(config)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """head_dim is the rotated width: the rope's."""
        if config.get("attention_bias"):
            raise ModelFileError("attention_bias is true; DeepSeek's attention is supported without biases.")
        rotated = latent_shape(config).rotated
        return DecoderConfig.from_config({**config, "head_dim": rotated, "num_key_value_heads": None})

    def has_neighbour_pairs(self, config: Mapping[str, Any]) -> bool:
        """Whether rotated columns are neighbours in the checkpoint."""
        return bool(config.get("rope_interleave", True))

    def make_layer(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> BranchLayer:
        assert place.rotation_PD is not None, "all layers rotate"
        shape = latent_shape(config)
        attention = LatentAttention(
            place.index,
            facts.hidden_size,
            facts.num_heads,
            shape,
            query_rank=None if config.get("q_lora_rank") is None else read_count(config, "q_lora_rank"),
            has_neighbour_pairs=self.has_neighbour_pairs(config),
            scale=shape.query**-0.5 * score_factor(facts.rope),
            rotation_PR=place.rotation_PD,
            placement=place.placement,
        )
        return BranchLayer(attention, facts, NAMES, placement=place.placement)

    def kv_layers(self) -> list[KVSpec]:
        spec = KVSpec(
            kind=KVKind.LATENT,
            num_kv_heads=1,
            head_dim=self.shape.row,
            value_dim=self.shape.latent,
            dtype_bytes=self.head.weight.element_size(),
        )
        return [spec] * self.facts.num_layers


class DeepseekV2ForCausalLM(DeepseekV3ForCausalLM):
    def has_neighbour_pairs(self, config: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return True


def latent_shape(config: Mapping[str, Any]) -> LatentShape:
    """Raises ModelFileError naming the width that cannot be."""
    return LatentShape(
        latent=read_count(config, "kv_lora_rank", default=512),
        rotated=read_count(config, "qk_rope_head_dim", default=64),
        nope=read_count(config, "qk_nope_head_dim", default=128),
        value=read_count(config, "v_head_dim", default=128),
    )
