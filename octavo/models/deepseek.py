"""DeepSeek V2, V2-Lite, V3 and R1: latent attention (https://arxiv.org/abs/2405.04434) and experts in groups.

Kimi K2 is a V3 by another model_type; GLM-4.7-Flash has its shape too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import structs

from octavo.attention.latents import LatentShape
from octavo.base.errors import ModelFileError
from octavo.layers.latent_attention import LatentAttention
from octavo.layers.native_latent_attention import NativeLatentAttention
from octavo.layers.placement import Placement
from octavo.layers.rope import score_factor
from octavo.messages.kv import KVKind, KVSpec
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import MAX_WIDTH, DecoderConfig, read_count, read_number
from octavo.models.group_routed import GroupRoutedForCausalLM, read_choice, read_groups
from octavo.models.moe_config import MoEConfig
from octavo.ops.routing import Routing

NORMS = BranchNames(before_attention="input_layernorm", before_mlp="post_attention_layernorm")


class DeepseekV3ForCausalLM(GroupRoutedForCausalLM):
    defaults: ClassVar[Mapping[str, Any]] = {
        "n_group": 8,
        "topk_group": 4,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 3,
    }

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.shape = latent_shape(config)
        self.is_native = placement.native is not None
        """Keys and values are rows of their own (see NativeLatentAttention)."""

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
        has_rank = config.get("q_lora_rank") is not None
        make = LatentAttention if place.placement.native is None else NativeLatentAttention
        attention = make(
            place.index,
            facts.hidden_size,
            facts.num_heads,
            shape,
            query_rank=read_count(config, "q_lora_rank", MAX_WIDTH) if has_rank else None,
            has_neighbour_pairs=self.has_neighbour_pairs(config),
            scale=shape.query**-0.5 * score_factor(facts.rope),
            rotation_PR=place.rotation_PD,
            placement=place.placement,
        )
        mlp = self.make_mlp(config, facts, place)
        return BranchLayer(attention, mlp, facts, NORMS, placement=place.placement)

    def kv_layers(self) -> list[KVSpec]:
        spec = KVSpec(
            kind=KVKind.LATENT,
            num_kv_heads=1,
            head_dim=self.shape.row,
            value_dim=self.shape.latent,
            dtype_bytes=self.head.weight.element_size(),
        )
        if self.is_native:
            spec = structs.replace(spec, kind=KVKind.FULL, value_dim=None)
        return [spec] * self.facts.num_layers


class Glm4MoeLiteForCausalLM(DeepseekV3ForCausalLM):
    defaults: ClassVar[Mapping[str, Any]] = {
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.8,
        "first_k_dense_replace": 1,
    }


class DeepseekV2ForCausalLM(DeepseekV3ForCausalLM):
    defaults: ClassVar[Mapping[str, Any]] = {"first_k_dense_replace": 0}
    chooses_with_bias = False

    def has_neighbour_pairs(self, config: Mapping[str, Any]) -> bool:  # noqa: ARG002
        return True

    def routing(self, config: Mapping[str, Any], moe: MoEConfig) -> Routing:
        method = read_choice(config, "topk_method", "greedy", "group_limited_greedy")
        read_choice(config, "scoring_func", "softmax")
        if config.get("norm_topk_prob"):
            raise ModelFileError("norm_topk_prob is true; DeepSeek V2's weights are supported as they are.")
        return Routing(
            num_chosen=moe.num_chosen,
            is_normed=False,
            factor=read_number(config, "routed_scaling_factor", 1.0),
            groups=None if method == "greedy" else read_groups(config, moe, num_best=1),
        )


def latent_shape(config: Mapping[str, Any]) -> LatentShape:
    """Raises ModelFileError naming the width that cannot be."""
    rotated = read_count(config, "qk_rope_head_dim", MAX_WIDTH, 64)
    if rotated % 2:
        raise ModelFileError(f"qk_rope_head_dim is {rotated}; pairs are rotated, so it must be even.")
    return LatentShape(
        latent=read_count(config, "kv_lora_rank", MAX_WIDTH, 512),
        rotated=rotated,
        nope=read_count(config, "qk_nope_head_dim", MAX_WIDTH, 128),
        value=read_count(config, "v_head_dim", MAX_WIDTH, 128),
    )
