"""DeepSeek V2, V2-Lite, V3 and R1, and Kimi K2, which has V3's shape.

Latent attention (https://arxiv.org/abs/2405.04434) and mixtures of experts beside an MLP that all tokens
share; the first layers have an MLP alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from octavo.attention.latents import LatentShape
from octavo.base.errors import ModelFileError
from octavo.layers.latent_attention import LatentAttention
from octavo.layers.mlp import MLP, GatedMLP, MLPNames
from octavo.layers.moe import MixtureOfExperts
from octavo.layers.placement import Placement
from octavo.layers.rope import score_factor
from octavo.layers.router import Router
from octavo.messages.kv import KVKind, KVSpec
from octavo.models.blocks.branch import BranchLayer, BranchNames
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import MAX_LAYERS, MAX_WIDTH, DecoderConfig, read_count, read_number
from octavo.models.llama import LlamaForCausalLM
from octavo.models.moe_config import MAX_EXPERTS, MoEConfig
from octavo.ops.routing import Groups, Routing, Scoring

NORMS = BranchNames(before_attention="input_layernorm", before_mlp="post_attention_layernorm")
SHARED = MLPNames(own="shared_experts")


class DeepseekV3ForCausalLM(LlamaForCausalLM):
    first_with_experts: ClassVar[int] = 3
    """Where a config does not say which layer is the first with experts."""
    chooses_with_bias: ClassVar[bool] = True
    """Whether experts are chosen by their scores plus a bias each."""

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
        return config.get("rope_interleave") in (None, True)

    def routing(self, config: Mapping[str, Any], moe: MoEConfig) -> Routing:
        """How tokens choose experts. Raises ModelFileError."""
        read_choice(config, "topk_method", "noaux_tc")
        read_choice(config, "scoring_func", "sigmoid")
        return Routing(
            num_chosen=moe.num_chosen,
            scoring=Scoring.SIGMOID,
            is_normed=config.get("norm_topk_prob") in (None, True),
            factor=read_number(config, "routed_scaling_factor", 2.5),
            groups=read_groups({"n_group": 8, "topk_group": 4, **config}, moe, num_best=2),
        )

    def make_layer(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> BranchLayer:
        assert place.rotation_PD is not None, "all layers rotate"
        shape = latent_shape(config)
        has_rank = config.get("q_lora_rank") is not None
        attention = LatentAttention(
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

    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        if not self.has_experts(config, place.index):
            return super().make_mlp(config, facts, place)
        moe, placement = MoEConfig.from_config(config), place.placement
        router = Router(
            facts.hidden_size,
            moe.num_experts,
            self.routing(config, moe),
            has_choice_bias=self.chooses_with_bias,
            placement=placement,
        )
        shared = None
        if config.get("n_shared_experts"):
            inner = moe.inner * read_count(config, "n_shared_experts", MAX_EXPERTS)
            shared = GatedMLP(
                facts.hidden_size, inner, bias=facts.mlp_bias, names=SHARED, placement=place.placement
            )
        return MixtureOfExperts(
            router, moe.shape(facts.hidden_size), shared=shared, placement=place.placement
        )

    def has_experts(self, config: Mapping[str, Any], layer: int) -> bool:
        """From the first layer that has, every moe_layer_freq-th."""
        first = config.get("first_k_dense_replace")
        first = self.first_with_experts if first is None else first
        if not isinstance(first, int) or isinstance(first, bool) or first < 0:
            raise ModelFileError(f"first_k_dense_replace is {str(first)[:40]!r}; it must be 0 or more.")
        return layer >= first and layer % read_count(config, "moe_layer_freq", MAX_LAYERS, 1) == 0

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
    first_with_experts = 0
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


def read_choice(config: Mapping[str, Any], name: str, *supported: str) -> str:
    """One of those that are supported; nothing stands for the first."""
    value = supported[0] if config.get(name) is None else config[name]
    if value not in supported:
        raise ModelFileError(
            f"The model's config has {name} {str(value)[:40]!r}; supported here: {', '.join(supported)}."
        )
    return str(value)


def read_groups(config: Mapping[str, Any], moe: MoEConfig, *, num_best: int) -> Groups:
    """num_best: so many experts' scores make a group's. Raises ModelFileError with both numbers."""
    count = read_count(config, "n_group", MAX_EXPERTS)
    num_chosen = read_count(config, "topk_group", MAX_EXPERTS)
    size = moe.num_experts // count
    if moe.num_experts % count or size < num_best:
        raise ModelFileError(
            f"The model's {moe.num_experts} experts cannot stand in n_group {count} equal groups of at least "
            f"{num_best}."
        )
    if num_chosen > count or moe.num_chosen > num_chosen * size:
        raise ModelFileError(
            f"A token chooses num_experts_per_tok {moe.num_chosen} experts from topk_group {num_chosen} of "
            f"{count} groups; these have {size} experts each."
        )
    return Groups(count=count, num_chosen=num_chosen, num_best=num_best)
