"""OPT: learned positions that begin at row 2; one size has norms behind and a narrower embedding.

T tokens, E width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.embedding import Embedding
from octavo.layers.linear import Linear
from octavo.layers.placement import Placement
from octavo.layers.slot import WeightSlot
from octavo.models.blocks.layer_norm_decoder import (
    LayerNormDecoder,
    Make,
    PartNames,
    plain_facts,
    read_activation,
)
from octavo.models.blocks.normed_layer import Flow
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import MAX_WIDTH

FIRST_POSITION = 2
"""Rows 0 and 1 of the table of positions belong to no position."""
NAMES = PartNames(
    embedding="model.decoder.embed_tokens",
    layers="model.decoder.layers",
    norm="model.decoder.final_layer_norm",
    attention_norm="self_attn_layer_norm",
    mlp_norm="final_layer_norm",
    out="self_attn.out_proj",
    up=("fc1",),
    down="fc2",
)


class OPTForCausalLM(LayerNormDecoder):
    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        facts, width = self.make.facts, self.hidden_size
        self.positions = Embedding(
            facts.rope.max_positions + FIRST_POSITION, facts.hidden_size, placement=placement
        )
        self.project_in = self.project_out = None
        if width != facts.hidden_size:
            self.project_in = Linear(width, [facts.hidden_size], placement=placement)
            self.project_out = Linear(facts.hidden_size, [width], placement=placement)

    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> Make:
        if not config.get("layer_norm_elementwise_affine", True):
            raise ModelFileError(
                "The model's norms have no weights (layer_norm_elementwise_affine); OPT's do."
            )
        is_before = config.get("do_layer_norm_before", True)
        has_bias = bool(config.get("enable_bias", True))
        tied = {"tie_word_embeddings": config.get("tie_word_embeddings", True)}
        return Make(
            facts=plain_facts(config, **tied),
            names=NAMES,
            epsilon=1e-5,
            flow=Flow.NORM_BEFORE if is_before else Flow.NORM_BEHIND,
            activation=read_activation(config, "activation_function", "relu"),
            has_qkv_bias=has_bias,
            has_out_bias=has_bias,
            has_mlp_bias=has_bias,
            has_final_norm=bool(is_before and not config.get("_remove_final_layer_norm")),
            rotates=False,
        )

    def embedding_width(self, config: Mapping[str, Any]) -> int:
        width = config.get("word_embed_proj_dim")
        if width is None:
            return super().embedding_width(config)
        if type(width) is not int or not 1 <= width <= MAX_WIDTH:
            raise ModelFileError(f"word_embed_proj_dim is {width!r}; it must be between 1 and {MAX_WIDTH}.")
        return width

    def first_inputs(self, x_TE: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        if self.project_in is not None:
            x_TE = self.project_in.forward(x_TE)
        return x_TE + self.positions.forward(positions_T + FIRST_POSITION)

    def forward(self, batch: ModelInput) -> torch.Tensor:
        hidden_TE = super().forward(batch)
        return hidden_TE if self.project_out is None else self.project_out.forward(hidden_TE)

    def weight_slots(self) -> list[WeightSlot]:
        slots = [*super().weight_slots(), *self.positions.slots("model.decoder.embed_positions")]
        if self.project_in is not None and self.project_out is not None:
            slots += self.project_in.slots("model.decoder.project_in")
            slots += self.project_out.slots("model.decoder.project_out")
        return slots
