"""Qwen 2, 2.5 and 3: Llama's shape with biases on queries, keys and values, or with a norm per head instead.

Some of their layers may see only a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.models.decoder_config import DecoderConfig
from octavo.models.llama import LlamaForCausalLM


class Qwen3ForCausalLM(LlamaForCausalLM):
    has_head_norms = True

    def layer_windows(self, config: Mapping[str, Any], facts: DecoderConfig) -> list[int | None]:
        """Configs of transformers 5 list the layers' types; older ones say from which layer on."""
        if not config.get("use_sliding_window"):
            return [None] * facts.num_layers
        types = config.get("layer_types")
        if types is None:
            first = int(config.get("max_window_layers") or 0)
            types = ["sliding_attention" if i >= first else "full_attention" for i in range(facts.num_layers)]
        if len(types) != facts.num_layers:
            raise ModelFileError(
                f"The model's config lists {len(types)} layer_types for {facts.num_layers} layers."
            )
        return [facts.sliding_window if kind == "sliding_attention" else None for kind in types]


class Qwen2ForCausalLM(Qwen3ForCausalLM):
    has_head_norms = False
    has_qkv_bias = True
