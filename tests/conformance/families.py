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
    "phi3 of 4k": ("phi3", {"sliding_window": 24}),
    "phi3, short longrope": ("phi3", longrope(original=700, width=8)),
    "phi3, long longrope, half rotated": ("phi3", longrope(original=14, width=4)),
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
    "glm": ("glm", {}),
    "glm4": ("glm4", {}),
    "glm4_moe": (
        "glm4_moe",
        {
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
        {**LATENT, "q_lora_rank": 28, "num_attention_heads": 5, "num_key_value_heads": 5},
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
