"""SmolLM3: Llama's shape, but some layers do not rotate positions; those may see only a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from octavo.base.errors import ModelFileError
from octavo.layers.placement import Placement
from octavo.layers.rope import rotation_table
from octavo.models.decoder_config import DecoderConfig
from octavo.models.layer_types import FULL, SLIDING, layer_types, windows_of
from octavo.models.llama import LlamaForCausalLM

INTERVAL = 4
"""Where a config says nothing: every fourth layer does not rotate."""


class SmolLM3ForCausalLM(LlamaForCausalLM):
    @classmethod
    def read_config(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Embedding and head are one matrix where a config says nothing."""
        return DecoderConfig.from_config({"tie_word_embeddings": True, **config})

    def layer_rotations(
        self, config: Mapping[str, Any], facts: DecoderConfig, placement: Placement
    ) -> list[torch.Tensor | None]:
        rotation_PD = rotation_table(facts.rope, placement)
        return [rotation_PD if rotates else None for rotates in _rotating(config, facts.num_layers)]

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        has_windows = config.get("use_sliding_window") and facts.sliding_window is not None
        rotating = _rotating(config, facts.num_layers)
        default = [SLIDING if has_windows and not rotates else FULL for rotates in rotating]
        return windows_of(layer_types(config, facts.num_layers, default), facts)


def _rotating(config: Mapping[str, Any], num_layers: int) -> list[bool]:
    listed = config.get("no_rope_layers")
    """In spite of its name, 1 stands for a layer that rotates."""
    if listed is None:
        interval = int(config.get("no_rope_layer_interval") or INTERVAL)
        return [bool((index + 1) % interval) for index in range(num_layers)]
    if len(listed) < num_layers:
        raise ModelFileError(f"no_rope_layers has {len(listed)} entries for {num_layers} layers.")
    return [bool(entry) for entry in listed[:num_layers]]
