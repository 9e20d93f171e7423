"""The models that conformance is shown on: tiny, random, of odd sizes, made by transformers. A line each.

A family's name stands for the case, `model_type` and overrides make the config (see tests/tiny.py).
"""

from __future__ import annotations

from typing import Any


def longrope(original: int, width: int) -> dict[str, Any]:
    """Phi's config, `width` of the 8 values of a head rotated."""
    short = [1.0 + 0.1 * i for i in range(width // 2)]
    return {
        "head_dim": 8,
        "original_max_position_embeddings": original,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": width / 8,
            "short_factor": short,
            "long_factor": [2.0 + value for value in short],
        },
    }


MAMBA2 = {
    "num_hidden_layers": 3,
    "mamba_n_heads": 6,
    "mamba_n_groups": 2,
    "mamba_d_state": 20,
    "mamba_chunk_size": 24,
}
GRANITE_HYBRID = {
    **MAMBA2,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    "head_dim": 8,
    "shared_intermediate_size": 56,
}
HEADS: dict[str, Any] = {"head_dim": ..., "num_key_value_heads": ...}
OLDER = {**HEADS, "intermediate_size": ...}
"""Families whose configs do not have these: every head has its key and value."""
MINISTRAL3_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 60,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 6,
    "kv_lora_rank": 20,
    "head_dim": 8,  # what transformers reads it from
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 10,
    "q_lora_rank": None,
    "moe_intermediate_size": 20,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "n_shared_experts": 2,
    "n_group": 3,
    "topk_group": 2,
}
DEEPSEEK_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 120,
    "beta_fast": 32,
    "beta_slow": 1,
    "mscale": 0.9,
    "mscale_all_dim": 0.707,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "mistral": ("mistral", {"sliding_window": 24}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, the last layers with a window": (
        "qwen2",
        {"num_hidden_layers": 4, "use_sliding_window": True, "sliding_window": 24, "max_window_layers": 2},
    ),
    "qwen3": ("qwen3", {}),
    "deepseek2, one query matrix, greedy": (
        "deepseek_v2",
        {**LATENT, "first_k_dense_replace": 1, "topk_method": "greedy", "v_head_dim": 24},
    ),
    "deepseek2, two query matrices, best groups, yarn": (
        "deepseek_v2",
        {
            **LATENT,
            "q_lora_rank": 28,
            "topk_method": "group_limited_greedy",
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 1.7,
            "rope_parameters": DEEPSEEK_YARN,
        },
    ),
    "deepseek3, yarn": (
        "deepseek_v3",
        {**LATENT, "q_lora_rank": 28, "first_k_dense_replace": 2, "rope_parameters": DEEPSEEK_YARN},
    ),
    "deepseek3, rope in halves": (
        "deepseek_v3",
        {**LATENT, "first_k_dense_replace": 0, "rope_interleave": False, "norm_topk_prob": False},
    ),
    "bamba": ("bamba", {**MAMBA2, "head_dim": ..., "attn_layer_indices": [1], "mamba_d_conv": 3}),
    "bloom": ("bloom", OLDER),
    "bloom, eight heads": ("bloom", {**OLDER, "num_attention_heads": 8, "tie_word_embeddings": False}),
    "cohere": ("cohere", {"logit_scale": 0.3, "attention_bias": True}),
    "falcon": (
        "falcon",
        {**OLDER, "ffn_hidden_size": 88, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": True},
    ),
    "falcon of 7B": ("falcon", {**OLDER, "ffn_hidden_size": 88, "tie_word_embeddings": False}),
    "falcon, branches in turn": ("falcon", {**OLDER, "multi_query": False, "parallel_attn": False}),
    "falcon, linear biases": (
        "falcon",
        {**OLDER, "alibi": True, "bias": True, "multi_query": False, "parallel_attn": False},
    ),
    "falcon h1": (
        "falcon_h1",
        {
            **MAMBA2,
            "head_dim": ...,
            "mamba_d_ssm": 60,
            "mamba_rms_norm": True,
            "embedding_multiplier": 3.5,
            "lm_head_multiplier": 0.6,
            "key_multiplier": 0.7,
            "attention_in_multiplier": 1.3,
            "attention_out_multiplier": 0.9,
            "mlp_multipliers": [0.8, 1.2],
            "ssm_multipliers": [0.7, 0.9, 1.1, 1.2, 0.8],
            "ssm_in_multiplier": 1.25,
            "ssm_out_multiplier": 0.6,
        },
    ),
    "falcon h1, gated alone": ("falcon_h1", {**MAMBA2, "head_dim": ..., "mamba_d_ssm": 60}),
    "gpt2": ("gpt2", {**OLDER, "n_inner": 88}),
    "gpt2, scores by layer": (
        "gpt2",
        {
            **OLDER,
            "scale_attn_by_inverse_layer_idx": True,
            "tie_word_embeddings": False,
            "activation_function": "gelu",
        },
    ),
    "gptj": ("gptj", {**OLDER, "rotary_dim": 4, "n_inner": 88}),
    "gpt_neox": (
        "gpt_neox",
        {
            **HEADS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 900.0, "partial_rotary_factor": 0.5},
        },
    ),
    "gpt_neox, branches in turn": (
        "gpt_neox",
        {**HEADS, "use_parallel_residual": False, "attention_bias": False},
    ),
    "qwen3 next": (
        "qwen3_next",
        {
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention"],
            "mlp_only_layers": [2],
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 28,
            "shared_expert_intermediate_size": 20,
            "linear_key_head_dim": 12,
            "linear_value_head_dim": 10,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 6,
            # With larger weights transformers is off from itself by 8e-3 where it takes chunks of 8.
            "initializer_range": 0.15,
            "partial_rotary_factor": 0.5,
        },
    ),
    "gemma": ("gemma", {}),
    "gemma2": (
        "gemma2",
        {
            "num_hidden_layers": 4,
            "sliding_window": 24,
            "query_pre_attn_scalar": 20,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 9.0,
        },
    ),
    "gemma3": (
        "gemma3_text",
        {
            "num_hidden_layers": 6,
            "sliding_window": 24,
            "sliding_window_pattern": 3,
            "query_pre_attn_scalar": 20,
            "final_logit_softcapping": 9.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
    "mpt": (
        "mpt",
        {**OLDER, "hidden_size": 60, "num_attention_heads": 5, "attn_config": {"clip_qkv": 1.5}},
    ),
    "mpt, another scale": (
        "mpt",
        {**OLDER, "num_attention_heads": 4, "attn_config": {"softmax_scale": 0.2}},
    ),
    "nemotron": ("nemotron", {"attention_bias": True}),
    "opt": ("opt", {**OLDER, "ffn_dim": 88}),
    "opt of 350m": (
        "opt",
        {**OLDER, "ffn_dim": 88, "do_layer_norm_before": False, "word_embed_proj_dim": 20},
    ),
    "phi": ("phi", {}),
    "phi3 of 4k": ("phi3", {"sliding_window": 24}),
    "phi3, short longrope": ("phi3", longrope(original=700, width=8)),
    "phi3, long longrope, half rotated": ("phi3", longrope(original=14, width=4)),
    "stablelm": ("stablelm", {"head_dim": ..., "use_qkv_bias": True}),
    "stablelm, branches side by side": (
        "stablelm",
        {"head_dim": ..., "use_parallel_residual": True},
    ),
    "starcoder2": ("starcoder2", {"sliding_window": 24}),
    "smollm3": ("smollm3", {"num_hidden_layers": 5, "no_rope_layer_interval": 2, "attention_bias": True}),
    "smollm3, with windows": (
        "smollm3",
        {
            "num_hidden_layers": 4,
            "no_rope_layers": [1, 0, 0, 1],
            "use_sliding_window": True,
            "sliding_window": 24,
        },
    ),
    "olmo2": ("olmo2", {}),
    "olmo3": (
        "olmo3",
        {
            "num_hidden_layers": 4,
            "sliding_window": 24,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "yarn",
                    "factor": 4.0,
                    "original_max_position_embeddings": 64,
                    "rope_theta": 20000.0,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        },
    ),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.5,
            "attention_multiplier": 0.11,
            "residual_multiplier": 0.7,
            "logits_scaling": 2.5,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
    ),
    "granite hybrid": (
        "granitemoehybrid",
        {
            **GRANITE_HYBRID,
            "num_local_experts": 0,
            "embedding_multiplier": 3.5,
            "attention_multiplier": 0.11,
            "residual_multiplier": 0.7,
            "logits_scaling": 2.5,
        },
    ),
    "granite hybrid, experts": (
        "granitemoehybrid",
        {
            **GRANITE_HYBRID,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "position_embedding_type": "rope",
        },
    ),
    "glm": ("glm", {}),
    "glm4": ("glm4", {}),
    "glm4_moe": (
        "glm4_moe",
        {
            "num_hidden_layers": 2,
            "moe_intermediate_size": 20,
            "n_routed_experts": 10,
            "num_experts_per_tok": 3,
            "routed_scaling_factor": 1.4,
            "use_qk_norm": True,
            "attention_bias": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        },
    ),
    "glm4_moe_lite": (
        "glm4_moe_lite",
        {
            **LATENT,
            "q_lora_rank": 28,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "num_hidden_layers": 2,
        },
    ),
    "mistral, wide heads": ("mistral", {"head_dim": 20, "sliding_window": None}),
    "ministral": (
        "ministral",
        {
            "num_hidden_layers": 4,
            "sliding_window": 24,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
        },
    ),
    "mamba2": (
        "mamba2",
        {
            **dict.fromkeys(("intermediate_size", "num_attention_heads", "num_key_value_heads"), ...),
            "max_position_embeddings": ...,
            "num_heads": 6,
            "head_dim": 16,
            "n_groups": 2,
            "state_size": 20,
            "chunk_size": 24,
            "use_bias": True,
        },
    ),
    "ministral3": ("ministral3", {"sliding_window": None, "rope_parameters": MINISTRAL3_ROPE}),
    "mixtral": ("mixtral", {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 24}),
    "qwen2_moe": (
        "qwen2_moe",
        {
            "num_experts": 9,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 20,
            "shared_expert_intermediate_size": 28,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {
            "num_hidden_layers": 4,
            "num_experts": 9,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 20,
            "norm_topk_prob": True,
            "decoder_sparse_step": 2,
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        {
            "num_hidden_layers": 4,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "sliding_window": 24,
            "swiglu_limit": 2.0,
            "initializer_range": 0.2,  # above it the reference itself is off by 2e-4 in float32
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 32.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
                "original_max_position_embeddings": 60,
            },
        },
    ),
    "olmoe": ("olmoe", {"head_dim": 8, "num_experts": 9, "num_experts_per_tok": 3}),
    "olmoe, clipped": (
        "olmoe",
        {"head_dim": 8, "num_experts": 9, "num_experts_per_tok": 3, "clip_qkv": 0.7},
    ),
    "granitemoe": (
        "granitemoe",
        {
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "embedding_multiplier": 3.5,
            "attention_multiplier": 0.11,
            "residual_multiplier": 0.7,
            "logits_scaling": 2.5,
        },
    ),
}

ALIKE = {
    "bamba",
    "cohere",
    "falcon",
    "falcon h1",
    "gpt2",
    "gpt_neox",
    "gptj",
    "mamba2",
    "mpt",
    "nemotron",
    "olmoe, clipped",
    "opt",
    "opt of 350m",
    "phi",
    "qwen3 next",
    "stablelm",
    "starcoder2",
}
"""To the engine these are what others are. Only `make test-long` runs them in more than one mode."""
VARIANTS = {
    "bloom, eight heads",
    "falcon h1, gated alone",
    "falcon of 7B",
    "falcon, branches in turn",
    "gpt2, scores by layer",
    "gpt_neox, branches in turn",
    "granite hybrid, experts",
    "mpt, another scale",
    "stablelm, branches side by side",
}
"""Rarer forms of families: `make test-long` alone runs them."""
