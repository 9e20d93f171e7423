"""Granite 4: most layers are Mamba-2, a few attend; an MLP that all tokens share, alone or beside experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.attention import HeadShape, SelfAttention
from octavo.layers.expert_tensors import StackedHalves
from octavo.layers.mamba2 import GatedNorm, Mamba2
from octavo.layers.mlp import MLP, GatedMLP, MLPNames
from octavo.layers.moe import MixtureNames, MixtureOfExperts
from octavo.layers.placement import Placement
from octavo.layers.rope import rotation_table
from octavo.layers.router import Router
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.hybrid_decoder import HybridDecoder, HybridLayer, Layer
from octavo.models.decoder_config import DecoderConfig, read_number
from octavo.models.mamba2_config import read_mamba2
from octavo.models.moe_config import MoEConfig
from octavo.ops.paged_plain import AttentionTerms
from octavo.ops.routing import Routing

ATTENTION, MAMBA = ("attention", "full_attention"), ("mamba", "linear_attention")
"""What configs call the two kinds of layers."""
SHARED = MLPNames(own="shared_mlp", gate_up=("input_linear",), down="output_linear")


class GraniteMoeHybridForCausalLM(HybridDecoder):
    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.embedding_factor = read_number(config, "embedding_multiplier", 1.0)
        self.logits_divisor = read_number(config, "logits_scaling", 1.0)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        inner = config.get("shared_intermediate_size") or 1024
        return DecoderConfig.from_config({**config, "intermediate_size": inner, "mlp_bias": False})

    def make_layers(self, config: Mapping[str, Any], placement: Placement) -> list[Layer]:
        facts = self.facts
        attends = read_layer_kinds(config, facts.num_layers)
        rotation_PD = None
        if config.get("position_embedding_type") == "rope":
            rotation_PD = rotation_table(facts.rope, placement)
        layers: list[Layer] = []
        for index, is_attention in enumerate(attends):
            number = sum(kind == is_attention for kind in attends[:index])
            mixer = (
                self._attention(number, config, rotation_PD, placement)
                if is_attention
                else self._mamba(number, config, placement)
            )
            factor = read_number(config, "residual_multiplier", 1.0)
            mlp = self._mlp(config, placement)
            layers.append(HybridLayer(mixer, mlp, facts, factor=factor, placement=placement))
        return layers

    def _attention(
        self, number: int, config: Mapping[str, Any], rotation_PD: torch.Tensor | None, placement: Placement
    ) -> SelfAttention:
        facts = self.facts
        return SelfAttention(
            number,
            facts.hidden_size,
            HeadShape(num_heads=facts.num_heads, num_kv_heads=facts.num_kv_heads, head_dim=facts.head_dim),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            terms=AttentionTerms(scale=read_number(config, "attention_multiplier", 1.0)),
            rotation_PD=rotation_PD,
            placement=placement,
        )

    def _mamba(self, number: int, config: Mapping[str, Any], placement: Placement) -> Mamba2:
        has_bias = bool(config.get("mamba_proj_bias"))
        return Mamba2(
            number,
            self.facts.hidden_size,
            read_mamba2(config),
            has_bias=has_bias,
            has_out_bias=has_bias,
            has_conv_bias=config.get("mamba_conv_bias") is not False,
            norm=GatedNorm(epsilon=self.facts.rms_norm_eps),
            placement=placement,
        )

    def _mlp(self, config: Mapping[str, Any], placement: Placement) -> MLP:
        facts = self.facts
        shared = GatedMLP(
            facts.hidden_size, facts.intermediate_size, bias=False, names=SHARED, placement=placement
        )
        if config.get("num_local_experts") == 0:
            return shared
        moe = MoEConfig.from_config(config, inner="intermediate_size")
        router = Router(
            facts.hidden_size, moe.num_experts, Routing(num_chosen=moe.num_chosen), placement=placement
        )
        return GraniteMixture(
            router, moe.shape(facts.hidden_size), shared=shared, names=MIXTURE, placement=placement
        )

    def first_inputs(self, x_TE: torch.Tensor) -> torch.Tensor:
        return x_TE * self.embedding_factor

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        return super().logits(hidden_SE) / self.logits_divisor


MIXTURE = MixtureNames(
    own="block_sparse_moe",
    router="router.layer",
    experts=StackedHalves(gate_up="input_linear.weight", down="output_linear.weight"),
)


class GraniteMixture(MixtureOfExperts):
    """What all tokens share stands beside the mixture, not within it."""

    def slots(self, layer: str) -> list[WeightSlot]:
        return [
            *self.router.slots(f"{layer}.{self.names.own}.{self.names.router}"),
            *self.names.experts.slots(f"{layer}.{self.names.own}", self.experts),
            *(self.shared.slots(layer) if self.shared is not None else ()),
        ]


def read_layer_kinds(config: Mapping[str, Any], num_layers: int) -> list[bool]:
    """By layer: whether it attends. Raises ModelFileError."""
    kinds = config.get("layer_types") or config.get("layers_block_type") or [MAMBA[0]] * num_layers
    if not isinstance(kinds, list) or len(kinds) != num_layers:
        stated = len(kinds) if isinstance(kinds, list) else str(kinds)[:40]
        raise ModelFileError(f"The model's config lists {stated} layer_types for {num_layers} layers.")
    unknown = [kind for kind in kinds if kind not in (*ATTENTION, *MAMBA)]
    if unknown:
        raise ModelFileError(
            f"The model's layer_types name {str(unknown[0])[:40]!r}; {', '.join((*ATTENTION, *MAMBA))} "
            "are supported."
        )
    return [kind in ATTENTION for kind in kinds]
