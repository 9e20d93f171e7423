"""Ministral: Mistral with a type for each layer. Ministral 3: Mistral whose queries grow with their position.

T tokens, P positions, O = (H + 2 K) * D as in layers/attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from octavo.attention.contract import AttentionLayer
from octavo.layers.placement import Placement
from octavo.models.contract import ModelInput
from octavo.models.decoder_config import DecoderConfig
from octavo.models.layer_types import FULL, SLIDING, layer_types, windows_of
from octavo.models.llama import LlamaForCausalLM, MistralForCausalLM


class MinistralForCausalLM(LlamaForCausalLM):
    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        default = [FULL if facts.sliding_window is None else SLIDING] * facts.num_layers
        return windows_of(layer_types(config, facts.num_layers, default), facts)


class Ministral3ForCausalLM(MistralForCausalLM):
    def __init__(self, config: Mapping[str, Any], placement: Placement) -> None:
        super().__init__(config, placement)
        rope = self.facts.rope
        growth = rope.number("llama_4_scaling_beta") if rope.values.get("llama_4_scaling_beta") else 0.0
        positions_P = torch.arange(placement.max_positions, device=placement.device)
        turns_P = (positions_P // rope.original_max_positions).float()
        self.query_factors_P = 1 + growth * torch.log1p(turns_P)
        """float32, 1 up to the length of the first training."""

    def forward(self, batch: ModelInput) -> torch.Tensor:
        factors_T1 = self.query_factors_P.index_select(0, batch.positions_T)[:, None]

        def attend(layer: AttentionLayer, qkv_TO: torch.Tensor) -> torch.Tensor:
            qkv_TO[:, : layer.num_heads * layer.head_dim] *= factors_T1
            return batch.attend(layer, qkv_TO)

        return super().forward(replace(batch, attend=attend))
