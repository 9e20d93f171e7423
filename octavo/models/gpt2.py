"""GPT-2: learned positions, plain MLPs, matrices stored the other way round (as transformers' Conv1D).

T tokens, E width, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.embedding import Embedding
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.layer_norm_decoder import (
    LayerNormDecoder,
    Make,
    PartNames,
    plain_facts,
    read_activation,
)
from octavo.models.blocks.normed_layer import NormedLayer
from octavo.models.decoder_config import read_number

NAMES = PartNames(
    embedding="transformer.wte",
    layers="transformer.h",
    norm="transformer.ln_f",
    attention_norm="ln_1",
    mlp_norm="ln_2",
    qkv=("attn.c_attn",),
    out="attn.c_proj",
    up=("mlp.c_fc",),
    down="mlp.c_proj",
)


class GPT2LMHeadModel(LayerNormDecoder):
    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        self.positions = Embedding(
            self.make.facts.rope.max_positions, self.make.facts.hidden_size, placement=placement
        )

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        if config.get("add_cross_attention"):
            raise ModelFileError("The model's config has add_cross_attention: it needs an encoder beside it.")
        inner = config.get("intermediate_size") or 4 * int(config.get("hidden_size") or 0)
        tied = {"tie_word_embeddings": config.get("tie_word_embeddings", True)}
        return Make(
            facts=plain_facts(config, intermediate_size=inner, **tied),
            names=NAMES,
            epsilon=read_number(config, "layer_norm_epsilon", 1e-5),
            activation=read_activation(config, "activation_function", "gelu_new"),
            has_qkv_bias=True,
            has_out_bias=True,
            has_mlp_bias=True,
            rotates=False,
        )

    def score_scale(self, config: Mapping[str, Any], index: int) -> float:
        scale = super().score_scale(config, index) if config.get("scale_attn_weights", True) else 1.0
        return scale / (index + 1) if config.get("scale_attn_by_inverse_layer_idx") else scale

    def first_inputs(self, x_TE: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        return x_TE + self.positions.forward(positions_T)

    def weight_slots(self) -> list[WeightSlot]:
        """OpenAI's own files have the names without what they begin with here."""
        slots = [*super().weight_slots(), *self.positions.slots("transformer.wpe")]
        return [replace(slot, older_name=slot.name.removeprefix("transformer.")) for slot in slots]

    def layer_slots(self, block: NormedLayer, name: str) -> list[WeightSlot]:
        """Matrices lie in the file as [I, O]."""
        return [
            replace(slot, target=slot.target.t(), is_turned=True) if slot.target.dim() == 2 else slot
            for slot in super().layer_slots(block, name)
        ]
