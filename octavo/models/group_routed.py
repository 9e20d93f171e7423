"""Decoders whose experts are routed as DeepSeek's are: in groups, beside an MLP that all tokens share.

The first layers have an MLP alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from octavo.base.errors import ModelFileError
from octavo.layers.mlp import MLP, GatedMLP, MLPNames
from octavo.layers.moe import MixtureOfExperts
from octavo.layers.placement import Placement
from octavo.layers.router import Router
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.decoder_config import MAX_LAYERS, DecoderConfig, read_count, read_number
from octavo.models.llama import LlamaForCausalLM
from octavo.models.moe_config import MAX_EXPERTS, MoEConfig
from octavo.ops.routing import Groups, Routing, Scoring

SHARED = MLPNames(own="shared_experts")
DENSE, SPARSE = "dense", "sparse"


class GroupRoutedForCausalLM(LlamaForCausalLM):
    """As DeepSeek-V3 routes (https://arxiv.org/abs/2412.19437, section 2.1.2)."""

    defaults: ClassVar[Mapping[str, Any]] = {}
    """What holds where a config says nothing."""
    chooses_with_bias: ClassVar[bool] = True
    """Whether experts are chosen by their scores plus a bias each."""

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        stated = {name: value for name, value in config.items() if value is not None}
        super().__init__({**self.defaults, **stated}, placement)

    def routing(self, config: Mapping[str, Any], moe: MoEConfig) -> Routing:
        """How tokens choose experts. Raises ModelFileError."""
        read_choice(config, "topk_method", "noaux_tc")
        read_choice(config, "scoring_func", "sigmoid")
        return Routing(
            num_chosen=moe.num_chosen,
            scoring=Scoring.SIGMOID,
            is_normed=bool(config.get("norm_topk_prob", True)),
            factor=read_number(config, "routed_scaling_factor", 1.0),
            groups=read_groups(config, moe, num_best=2),
        )

    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        if not has_experts(config, place.index):
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
                facts.hidden_size, inner, bias=facts.mlp_bias, names=SHARED, placement=placement
            )
        return MixtureOfExperts(router, moe.shape(facts.hidden_size), shared=shared, placement=placement)


def has_experts(config: Mapping[str, Any], layer: int) -> bool:
    """As mlp_layer_types says; else from first_k_dense_replace on, every moe_layer_freq-th."""
    types = config.get("mlp_layer_types")
    if types is not None:
        if not isinstance(types, list) or len(types) <= layer or types[layer] not in (DENSE, SPARSE):
            raise ModelFileError(f"mlp_layer_types must say {DENSE} or {SPARSE} for layer {layer}.")
        return bool(types[layer] == SPARSE)
    first = config.get("first_k_dense_replace")
    if not isinstance(first, int) or isinstance(first, bool) or first < 0:
        raise ModelFileError(f"first_k_dense_replace is {str(first)[:40]!r}; it must be 0 or more.")
    return layer >= first and layer % read_count(config, "moe_layer_freq", MAX_LAYERS, 1) == 0


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
