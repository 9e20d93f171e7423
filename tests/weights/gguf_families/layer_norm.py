"""Decoders with layer norm, most of them older."""

from __future__ import annotations

from tests.conformance.families import OLDER
from tests.weights.gguf_conversions import bloom, by_kind, plus_one, turned
from tests.weights.gguf_families.family import HEADS, WIDTH, GGUFFamily

EPSILON = {"attention.layer_norm_epsilon": 1e-5}
FALCON = {**OLDER, "ffn_hidden_size": 88}
LAYER_NORM: dict[str, dict[str, GGUFFamily]] = {
    "gpt2": {
        "": GGUFFamily(
            model_type="gpt2",
            overrides={**OLDER, "n_inner": 88},
            keys={**EPSILON, "attention.head_count_kv": None},
            convert=turned,
        )
    },
    "gptneox": {
        "parallel": GGUFFamily(
            model_type="gpt_neox",
            overrides={
                "num_key_value_heads": ...,
                "head_dim": ...,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            },
            keys={
                **EPSILON,
                "rope.dimension_count": 4,
                "attention.head_count_kv": None,
                "use_parallel_residual": True,
            },
            convert=by_kind,
        ),
        "in turn": GGUFFamily(
            model_type="gpt_neox",
            overrides={
                "num_key_value_heads": ...,
                "head_dim": ...,
                "use_parallel_residual": False,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
            },
            keys={
                **EPSILON,
                "rope.dimension_count": 8,
                "attention.head_count_kv": None,
                "use_parallel_residual": False,
            },
            convert=by_kind,
        ),
    },
    "phi2": {
        "": GGUFFamily(
            model_type="phi",
            overrides={"head_dim": ..., "num_key_value_heads": HEADS},
            keys={**EPSILON, "attention.head_count_kv": HEADS, "rope.dimension_count": 4},
        )
    },
    "bloom": {
        "": GGUFFamily(
            model_type="bloom",
            overrides=OLDER,
            keys={**EPSILON, "attention.head_count_kv": HEADS, "feed_forward_length": 4 * WIDTH},
            convert=bloom,
        )
    },
    "mpt": {
        "": GGUFFamily(
            model_type="mpt",
            overrides={**OLDER, "attn_config": {"clip_qkv": 1.5}},
            keys={
                **EPSILON,
                "attention.head_count_kv": None,
                "attention.max_alibi_bias": 8.0,
                "attention.clamp_kqv": 1.5,
                "feed_forward_length": 4 * WIDTH,
            },
        )
    },
    "falcon": {
        "7B": GGUFFamily(
            model_type="falcon",
            overrides={**FALCON, "tie_word_embeddings": False},
            keys={**EPSILON, "attention.head_count_kv": 1, "tensor_data_layout": "jploski"},
            convert=by_kind,
        ),
        "40B": GGUFFamily(
            model_type="falcon",
            overrides={**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
            keys=EPSILON,
            convert=by_kind,
        ),
        "11B": GGUFFamily(
            model_type="falcon",
            overrides={
                **FALCON,
                "new_decoder_architecture": True,
                "num_kv_heads": 2,
                "num_ln_in_parallel_attn": 1,
            },
            keys=EPSILON,
            convert=by_kind,
        ),
    },
    "stablelm": {
        "": GGUFFamily(
            model_type="stablelm",
            overrides={
                "head_dim": ...,
                "use_qkv_bias": True,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            },
            keys={**EPSILON, "rope.dimension_count": 4, "use_parallel_residual": False},
        ),
        "parallel": GGUFFamily(
            model_type="stablelm",
            overrides={
                "head_dim": ...,
                "use_parallel_residual": True,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25},
            },
            keys={**EPSILON, "rope.dimension_count": 2, "use_parallel_residual": True},
        ),
    },
    "starcoder2": {
        "": GGUFFamily(
            model_type="starcoder2",
            overrides={"head_dim": ..., "sliding_window": None},
            keys={**EPSILON, "rope.freq_base": 1e4},
        )
    },
    "nemotron": {
        "": GGUFFamily(
            model_type="nemotron",
            overrides={"head_dim": ...},
            keys={**EPSILON, "rope.dimension_count": 4, "rope.scaling.type": "none"},
            convert=plus_one,
        )
    },
    "command-r": {
        "": GGUFFamily(
            model_type="cohere",
            overrides={"head_dim": ..., "logit_scale": 0.3},
            keys={**EPSILON, "logit_scale": 0.3, "rope.scaling.type": "none", "rope.freq_base": 5e5},
        )
    },
}
