"""Families as GGUF files: a line each.

The config of the model, the keys of the file, and what happens to its tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from gguf_conversions import (
    Named,
    by_kind,
    granite,
    llama,
    plus_one,
    qwen3_next,
    turned,
    with_factors,
    with_mixers,
    without_experts,
)

from tests.conformance.fallback import EXPERTS
from tests.conformance.families import FAMILIES as CONFORMANCE
from tests.conformance.families import OLDER

WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER = 48, 6, 2, 12, 88


@dataclass(frozen=True, kw_only=True)
class GGUFFamily:
    model_type: str
    overrides: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    """Beside those of all; `None` leaves one of them out."""
    convert: Callable[[str, torch.Tensor, dict[str, Any]], Named] = lambda name, tensor, _: iter(
        [(name, tensor)]
    )
    """(Hugging Face's name, tensor, config) -> names that gguf's map knows, or GGUF's own, and tensors."""


def longrope_keys(longest: int, original: int) -> dict[str, Any]:
    factor = math.sqrt(1 + math.log(longest / original) / math.log(original))
    return {
        "rope.scaling.original_context_length": original,
        "rope.scaling.attn_factor": factor,
        "attention.sliding_window": 0,
    }


RMS = {"attention.layer_norm_rms_epsilon": 1e-5}
RMS6 = {"attention.layer_norm_rms_epsilon": 1e-6}
ROTATED = {**RMS6, "attention.key_length": 12, "attention.value_length": 12, "rope.dimension_count": 12}
WIDE = {**ROTATED, "rope.freq_base": 1e4}
EPSILON = {"attention.layer_norm_epsilon": 1e-5}


FALCON = {**OLDER, "ffn_hidden_size": 88}
MAMBA2_KEYS = {
    "ssm.conv_kernel": 4,
    "ssm.state_size": 20,
    "ssm.group_count": 2,
    "ssm.time_step_rank": 6,
    "ssm.inner_size": 96,
}
FALCON_H1_KEYS = {
    **MAMBA2_KEYS,
    "attention.key_length": 8,
    "attention.value_length": 8,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "rope.freq_base": 1e4,
}
GRANITE_LAYERS = ["mamba", "mamba", "attention", "mamba"]
GRANITE_KEYS = {
    **MAMBA2_KEYS,
    "attention.head_count_kv": [0, 0, KV_HEADS, 0],
    "attention.layer_norm_rms_epsilon": 1e-6,
    "rope.scaling.finetuned": False,
    "embedding_scale": 3.5,
    "residual_scale": 0.7,
    "logit_scale": 2.5,
}
FAMILIES: dict[str, dict[str, GGUFFamily]] = {
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
    "olmo2": {"": GGUFFamily(model_type="olmo2", keys={**WIDE, "attention.layer_norm_rms_epsilon": 1e-5})},
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
    "qwen2moe": {
        "": GGUFFamily(
            model_type="qwen2_moe",
            overrides={**EXPERTS, "head_dim": ..., "shared_expert_intermediate_size": 28},
            keys={
                **RMS6,
                "rope.freq_base": 1e4,
                "expert_count": 6,
                "expert_used_count": 2,
                "expert_feed_forward_length": 20,
                "expert_shared_feed_forward_length": 28,
            },
            convert=without_experts,
        )
    },
    "granitemoe": {
        "": GGUFFamily(
            model_type="granitemoe",
            overrides={**CONFORMANCE["granitemoe"][1], "head_dim": ...},
            keys={
                **RMS6,
                "embedding_scale": 3.5,
                "attention.scale": 0.11,
                "residual_scale": 0.7,
                "logit_scale": 2.5,
                "expert_count": 5,
                "expert_used_count": 2,
            },
            convert=granite,
        )
    },
    "qwen3moe": {
        "": GGUFFamily(
            model_type="qwen3_moe",
            overrides={**EXPERTS, "norm_topk_prob": True},
            keys={**WIDE, "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20},
            convert=without_experts,
        )
    },
    "olmoe": {
        "": GGUFFamily(
            model_type="olmoe",
            overrides={"num_experts": 6, "num_experts_per_tok": 2, "head_dim": 8},
            keys={**RMS, "expert_count": 6, "expert_used_count": 2, "rope.freq_base": 1e4},
            convert=without_experts,
        )
    },
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
    "mamba2": {
        "": GGUFFamily(
            model_type="mamba2",
            overrides={**CONFORMANCE["mamba2"][1], "n_groups": 1},
            keys={
                **MAMBA2_KEYS,
                "context_length": 2**20,
                "feed_forward_length": 0,
                "attention.head_count": 0,
                "attention.head_count_kv": None,
                "attention.layer_norm_rms_epsilon": 1e-5,
                "ssm.group_count": 1,
            },
            convert=with_mixers,
        )
    },
    "falcon-h1": {
        "norms and factors": GGUFFamily(
            model_type="falcon_h1",
            overrides={**CONFORMANCE["falcon h1"][1], "mamba_norm_before_gate": False, "mamba_d_ssm": 96},
            keys=FALCON_H1_KEYS,
            convert=with_factors,
        ),
        "no norms": GGUFFamily(
            model_type="falcon_h1",
            overrides={
                **CONFORMANCE["falcon h1, gated alone"][1],
                "mamba_d_ssm": 96,
                "tie_word_embeddings": False,
            },
            keys=FALCON_H1_KEYS,
            convert=with_factors,
        ),
    },
    "granitehybrid": {
        "dense": GGUFFamily(
            model_type="granitemoehybrid",
            overrides={**CONFORMANCE["granite hybrid"][1], "layer_types": GRANITE_LAYERS},
            keys={**GRANITE_KEYS, "feed_forward_length": 56, "attention.scale": 0.11},
            convert=granite,
        ),
        "experts": GGUFFamily(
            model_type="granitemoehybrid",
            overrides={
                **CONFORMANCE["granite hybrid"][1],
                "layer_types": GRANITE_LAYERS,
                "num_local_experts": 5,
                "num_experts_per_tok": 2,
            },
            keys={
                **GRANITE_KEYS,
                "attention.scale": 0.11,
                "expert_count": 5,
                "expert_used_count": 2,
                "expert_shared_feed_forward_length": 56,
            },
            convert=granite,
        ),
    },
    "qwen3next": {
        "": GGUFFamily(
            model_type="qwen3_next",
            overrides={
                **CONFORMANCE["qwen3 next"][1],
                "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
                "mlp_only_layers": [],
            },
            keys={
                "attention.key_length": HEAD_DIM,
                "attention.value_length": HEAD_DIM,
                "attention.layer_norm_rms_epsilon": 1e-6,
                "rope.dimension_count": 6,
                "expert_count": 5,
                "expert_used_count": 2,
                "expert_feed_forward_length": 28,
                "expert_shared_feed_forward_length": 20,
                "ssm.conv_kernel": 4,
                "ssm.state_size": 12,
                "ssm.group_count": 2,
                "ssm.time_step_rank": 6,
                "ssm.inner_size": 60,
                "full_attention_interval": 4,
            },
            convert=qwen3_next,
        )
    },
}
"""GGUF's architecture -> its variants."""
