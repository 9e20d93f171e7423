"""Qwen 2 and 3 with experts, in all layers or in some; in Qwen 2 beside an MLP that all tokens share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from octavo.base.errors import ModelFileError
from octavo.layers.mlp import MLP, GatedMLP, MLPNames
from octavo.layers.moe import MixtureOfExperts
from octavo.layers.placement import Placement
from octavo.models.blocks.decoder import LayerPlace
from octavo.models.blocks.mixture import make_mixture
from octavo.models.decoder_config import MAX_WIDTH, DecoderConfig, read_count
from octavo.models.layer_types import FULL, SLIDING, layer_types, windows_of
from octavo.models.llama import LlamaForCausalLM
from octavo.models.moe_config import MoEConfig
from octavo.models.qwen import Qwen2ForCausalLM


class Qwen3MoeForCausalLM(LlamaForCausalLM):
    has_head_norms = True

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config(_without_unused_window(config))

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:  # noqa: ARG002
        """One for all layers, whatever max_window_layers says."""
        return [facts.sliding_window] * facts.num_layers

    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        if not has_experts(config, place.index):
            return super().make_mlp(config, facts, place)
        return qwen_mixture(config, facts, place.placement)


class Qwen2MoeForCausalLM(Qwen2ForCausalLM):
    shared_names: ClassVar[MLPNames] = MLPNames(own="shared_expert")

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        self.has_qkv_bias = config.get("qkv_bias") in (None, True)
        super().__init__(config, placement)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        return DecoderConfig.from_config(_without_unused_window(config))

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        """Where the config lists no layer_types: every second of the first layers, if at all."""
        first = 0 if facts.sliding_window is None else read_count(config, "max_window_layers", 2**16, 28)
        default = [FULL if index % 2 or index >= first else SLIDING for index in range(facts.num_layers)]
        return windows_of(layer_types(config, facts.num_layers, default), facts)

    def make_mlp(self, config: Mapping[str, Any], facts: DecoderConfig, place: LayerPlace) -> MLP:
        if not has_experts(config, place.index):
            return super().make_mlp(config, facts, place)
        shared = GatedMLP(
            facts.hidden_size,
            read_count(config, "shared_expert_intermediate_size", MAX_WIDTH),
            bias=False,
            names=self.shared_names,
            placement=place.placement,
        )
        return qwen_mixture(config, facts, place.placement, shared)


def qwen_mixture(
    config: Mapping[str, Any], facts: DecoderConfig, placement: Placement, shared: GatedMLP | None = None
) -> MixtureOfExperts:
    return make_mixture(
        MoEConfig.from_config(config),
        facts.hidden_size,
        is_normed=bool(config.get("norm_topk_prob")),
        gated_shared=shared,
        placement=placement,
    )


def has_experts(config: Mapping[str, Any], layer: int) -> bool:
    """Every decoder_sparse_step-th layer, but for those in mlp_only_layers."""
    dense = config.get("mlp_only_layers") or []
    if not isinstance(dense, list):
        raise ModelFileError(f"The model's mlp_only_layers is {str(dense)[:40]!r}; it must be a list.")
    return layer not in dense and (layer + 1) % read_count(config, "decoder_sparse_step", 2**16, 1) == 0


def _without_unused_window(config: Mapping[str, Any]) -> dict[str, Any]:
    """Configs may name a window, or 0 for one, and not use it."""
    is_used = config.get("use_sliding_window")
    return {**config, "sliding_window": config.get("sliding_window") if is_used else None}
