"""Decoders with RMS norm, all of whose weights work for every token."""

from __future__ import annotations

import math
from typing import Any

from tests.conformance.families import FAMILIES as CONFORMANCE
from tests.conformance.families import MINISTRAL3_ROPE
from tests.weights.gguf_conversions import llama, plus_one
from tests.weights.gguf_families.family import HEAD_DIM, RMS, RMS6, ROTATED, WIDE, GGUFFamily


def longrope_keys(longest: int, original: int) -> dict[str, Any]:
    factor = math.sqrt(1 + math.log(longest / original) / math.log(original))
    return {
        "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": factor,
        "attention.sliding_window": 0,
    }


OLMO3_LAYERS = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
OLMO3_KEYS = {
    **WIDE,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.sliding_window": 24,
    "rope.freq_base": 2e4,
    "rope.freq_base_swa": 500.0,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 64,
}
MISTRAL3_KEYS = {
    **WIDE,
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 16.0,
    "rope.scaling.original_context_length": 12,
    "attention.temperature_scale": 0.1,
}
RMS_NORM: dict[str, dict[str, GGUFFamily]] = {
    "llama": {"": GGUFFamily(model_type="llama", keys=ROTATED, convert=llama)},
    "qwen2": {
        "": GGUFFamily(model_type="qwen2", overrides={"head_dim": ...}, keys={**RMS6, "rope.freq_base": 1e4})
    },
    "qwen3": {"": GGUFFamily(model_type="qwen3", keys=WIDE)},
    "smollm3": {
        "": GGUFFamily(
            model_type="smollm3",
            overrides={"num_hidden_layers": 5, "tie_word_embeddings": False},
            keys={**WIDE, "rope.freq_base": 2e6},
            convert=llama,
        )
    },
    "granite": {
        "": GGUFFamily(
            model_type="granite",
            overrides=CONFORMANCE["granite"][1],
            keys={
                **WIDE,
                "embedding_scale": 3.5,
                "attention.scale": 0.11,
                "residual_scale": 0.7,
                "logit_scale": 2.5,
            },
            convert=llama,
        )
    },
    "olmo2": {
        "": GGUFFamily(model_type="olmo2", keys={**WIDE, "attention.layer_norm_rms_epsilon": 1e-5}),
        "olmo3": GGUFFamily(model_type="olmo3", overrides=CONFORMANCE["olmo3"][1], keys=OLMO3_KEYS),
        "olmo3, other windows": GGUFFamily(
            model_type="olmo3",
            overrides={**CONFORMANCE["olmo3"][1], "layer_types": OLMO3_LAYERS},
            keys={
                **OLMO3_KEYS,
                "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in OLMO3_LAYERS],
            },
        ),
    },
    "mistral3": {
        "": GGUFFamily(
            model_type="ministral3",
            overrides={
                "sliding_window": None,
                "rope_parameters": {**MINISTRAL3_ROPE, "original_max_position_embeddings": 12},
            },
            keys={**MISTRAL3_KEYS, "rope.scaling.yarn_log_multiplier": 1.0},
            convert=llama,
        ),
        "queries of one length": GGUFFamily(
            model_type="mistral", overrides={"sliding_window": None}, keys=WIDE, convert=llama
        ),
    },
    "gemma": {"": GGUFFamily(model_type="gemma", keys=WIDE, convert=plus_one)},
    "gemma2": {
        "": GGUFFamily(
            model_type="gemma2",
            overrides={"sliding_window": 24, "query_pre_attn_scalar": HEAD_DIM},
            keys={
                **WIDE,
                "attention.sliding_window": 24,
                "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0,
            },
            convert=plus_one,
        )
    },
    "gemma3": {
        "": GGUFFamily(
            model_type="gemma3_text",
            overrides={"num_hidden_layers": 6, "sliding_window": 24, "query_pre_attn_scalar": HEAD_DIM},
            keys={**WIDE, "attention.sliding_window": 24, "rope.freq_base": 1e6},
            convert=plus_one,
        )
    },
    "phi3": {
        "4k": GGUFFamily(
            model_type="phi3",
            overrides={"head_dim": 8, "sliding_window": 24, "original_max_position_embeddings": 1024},
            keys={**RMS, "rope.dimension_count": 8, "attention.sliding_window": 24},
        ),
        "short longrope": GGUFFamily(
            model_type="phi3",
            overrides=CONFORMANCE["phi3, short longrope"][1],
            keys={**RMS, "rope.dimension_count": 8, **longrope_keys(1024, 700)},
        ),
        "long longrope, half rotated": GGUFFamily(
            model_type="phi3",
            overrides=CONFORMANCE["phi3, long longrope, half rotated"][1],
            keys={**RMS, "rope.dimension_count": 4, **longrope_keys(1024, 14)},
        ),
    },
    "glm4": {
        "": GGUFFamily(
            model_type="glm4",
            overrides={"attention_bias": True},
            keys={
                "attention.layer_norm_rms_epsilon": 1.5625e-07,
                "attention.key_length": HEAD_DIM,
                "attention.value_length": HEAD_DIM,
                "rope.dimension_count": 6,
                "rope.freq_base": 1e4,
            },
        )
    },
}
