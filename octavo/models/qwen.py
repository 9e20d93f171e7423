"""Qwen 2, 2.5 and 3: Llama's shape with biases on queries, keys and values, or with a norm per head instead.

Some of their layers may see only a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.models.decoder_config import DecoderConfig
from octavo.models.layer_types import FULL, SLIDING, layer_types, windows_of
from octavo.models.llama import LlamaForCausalLM


class Qwen3ForCausalLM(LlamaForCausalLM):
    has_head_norms = True

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        """Configs of transformers 5 list the layers' types; older ones say from which layer on."""
        if not config.get("use_sliding_window"):
            return [None] * facts.num_layers
        first = int(config.get("max_window_layers") or 0)
        default = [SLIDING if index >= first else FULL for index in range(facts.num_layers)]
        return windows_of(layer_types(config, facts.num_layers, default), facts)


class Qwen2ForCausalLM(Qwen3ForCausalLM):
    has_head_norms = False
    has_qkv_bias = True
