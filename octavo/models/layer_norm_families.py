"""Families that are told by their config alone: Phi 1 and 2, StableLM, StarCoder 2, Nemotron, Command R."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.layer_norm_decoder import (
    GATED_SILU,
    LayerNormDecoder,
    Make,
    PartNames,
    plain_facts,
    read_activation,
    refuse,
)
from octavo.models.blocks.normed_layer import Flow
from octavo.models.blocks.row_orders import halves_of_pairs
from octavo.models.decoder_config import read_number

PHI = PartNames(norm="model.final_layernorm", out="self_attn.dense", up=("mlp.fc1",), down="mlp.fc2")
GATED = PartNames(up=("mlp.gate_proj", "mlp.up_proj"))
STARCODER2 = PartNames(up=("mlp.c_fc",), down="mlp.c_proj")


class PhiForCausalLM(LayerNormDecoder):
    """Branches side by side behind one norm; biases everywhere."""

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        refuse(config, "qk_layernorm", what="a layer norm of queries and keys")
        return Make(
            facts=plain_facts({"partial_rotary_factor": 0.5, **config}),
            names=PHI,
            epsilon=read_number(config, "layer_norm_eps", 1e-5),
            flow=Flow.PARALLEL,
            activation=read_activation(config, "hidden_act", "gelu_new"),
            has_qkv_bias=True,
            has_out_bias=True,
            has_mlp_bias=True,
            has_head_bias=True,
            has_mlp_norm=False,
        )


class StableLmForCausalLM(LayerNormDecoder):
    """Llama's shape with layer norms."""

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        refuse(config, "qk_layernorm", what="a layer norm of queries and keys")
        is_parallel = bool(config.get("use_parallel_residual"))
        return Make(
            facts=plain_facts({"partial_rotary_factor": 0.25, **config}),
            names=GATED,
            epsilon=read_number(config, "layer_norm_eps", 1e-5),
            flow=Flow.PARALLEL if is_parallel else Flow.NORM_BEFORE,
            activation=GATED_SILU,
            has_qkv_bias=bool(config.get("use_qkv_bias")),
            has_out_bias=False,
            has_mlp_bias=False,
            has_mlp_norm=not is_parallel,
        )


class Starcoder2ForCausalLM(LayerNormDecoder):
    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        has_bias = bool(config.get("use_bias", True))
        facts = plain_facts({"tie_word_embeddings": True, **config})
        return Make(
            facts=facts,
            names=STARCODER2,
            epsilon=read_number(config, "norm_epsilon", 1e-5),
            activation=read_activation(config, "hidden_act", "gelu_pytorch_tanh"),
            has_qkv_bias=has_bias,
            has_out_bias=has_bias,
            has_mlp_bias=has_bias,
            window=facts.sliding_window,
        )


class NemotronForCausalLM(LayerNormDecoder):
    """Squared ReLU; norms that add one to their weights."""

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        facts = plain_facts({"partial_rotary_factor": 0.5, **config})
        return Make(
            facts=facts,
            names=PartNames(),
            epsilon=read_number(config, "norm_eps", 1e-5),
            activation=read_activation(config, "hidden_act", "relu2"),
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            has_mlp_bias=facts.mlp_bias,
            norm_offset=1.0,
        )


class CohereForCausalLM(LayerNormDecoder):
    """Branches side by side behind one norm without a bias; logits are scaled."""

    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.logit_scale = read_number(config, "logit_scale", 0.0625)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        refuse(config, "use_qk_norm", what="a layer norm of queries and keys")
        facts = plain_facts({"tie_word_embeddings": True, "rope_theta": 500_000.0, **config})
        return Make(
            facts=facts,
            names=GATED,
            epsilon=read_number(config, "layer_norm_eps", 1e-5),
            flow=Flow.PARALLEL,
            activation=GATED_SILU,
            has_qkv_bias=facts.attention_bias,
            has_out_bias=facts.attention_bias,
            has_mlp_bias=False,
            has_norm_bias=False,
            has_mlp_norm=False,
        )

    def logits(self, hidden_SE: torch.Tensor) -> torch.Tensor:
        return super().logits(hidden_SE) * self.logit_scale

    def weight_slots(self) -> list[WeightSlot]:
        """Rotated pairs are neighbours in the checkpoint."""
        facts = self.make.facts
        return [
            replace(slot, order_R=halves_of_pairs(len(slot.target), facts.head_dim, facts.rope.head_dim))
            if ".q_proj." in slot.name or ".k_proj." in slot.name
            else slot
            for slot in super().weight_slots()
        ]
