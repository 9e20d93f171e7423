"""Mamba-2 alone: no layer attends, so there is no KV cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from octavo.layers.mamba2 import GatedNorm, Mamba2
from octavo.layers.norm import RMSNorm
from octavo.layers.placement import Placement
from octavo.layers.residual import Residual
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.hybrid_decoder import HybridDecoder, Layer, states_of
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import DecoderConfig, read_number
from octavo.models.mamba2_config import Mamba2Names, read_mamba2

NAMES = Mamba2Names(
    num_heads="num_heads",
    head_dim="head_dim",
    num_groups="n_groups",
    state_size="state_size",
    num_taps="conv_kernel",
    expand="expand",
)
ABSENT = {"intermediate_size": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4}
"""What the model does not have, at its least."""


class Mamba2ForCausalLM(HybridDecoder):
    embedding_name = "backbone.embeddings"
    layers_name = "backbone.layers"
    norm_name = "backbone.norm_f"

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        epsilon = read_number(config, "layer_norm_epsilon", 1e-5)
        return DecoderConfig.from_config({**config, **ABSENT, "rms_norm_eps": epsilon})

    def make_layers(self, config: Mapping[str, Any], placement: Placement) -> list[Layer]:
        shape, has_bias = read_mamba2(config, NAMES), bool(config.get("use_bias"))
        epsilon = self.facts.rms_norm_eps
        return [
            Mamba2Layer(
                Mamba2(
                    index,
                    self.facts.hidden_size,
                    shape,
                    has_bias=has_bias,
                    has_out_bias=has_bias,
                    has_conv_bias=config.get("use_conv_bias") is not False,
                    norm=GatedNorm(epsilon=epsilon),
                    placement=placement,
                ),
                RMSNorm(self.facts.hidden_size, epsilon=epsilon, placement=placement),
            )
            for index in range(self.facts.num_layers)
        ]

    def weight_slots(self) -> list[WeightSlot]:
        """The first checkpoints call the embedding by another name."""
        name = f"{self.embedding_name}.weight"
        return [
            replace(slot, older_name="backbone.embedding.weight") if slot.name == name else slot
            for slot in super().weight_slots()
        ]


class Mamba2Layer(nn.Module):
    """x + mixer(norm(x)), and nothing more."""

    def __init__(self, mixer: Mamba2, norm: RMSNorm) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = norm

    def forward(self, stream: Residual, batch: ModelInput) -> Residual:
        return self.mixer.forward(stream, self.norm, states_of(batch))

    def slots(self, name: str) -> list[WeightSlot]:
        return [*self.norm.slots(f"{name}.norm"), *self.mixer.slots(f"{name}.mixer")]
