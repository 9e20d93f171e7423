"""Models that conformance of the transformers fallback is shown on: as in families.py, a line each."""

from __future__ import annotations

from typing import Any

from tests.conformance.families import longrope

EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
WINDOWS = {"num_hidden_layers": 4, "sliding_window": 24}
ALTERNATING = {
    **WINDOWS,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
}

FALLBACK: dict[str, tuple[str, dict[str, Any]]] = {
    "apertus": ("apertus", {}),
    "arcee": ("arcee", {}),
    "biogpt": ("biogpt", {"scale_embedding": True}),
    "bitnet": ("bitnet", {"hidden_size": 72}),
    "cohere": ("cohere", {"logit_scale": 0.3, "use_qk_norm": True}),
    "cohere2": ("cohere2", {**ALTERNATING, "logit_scale": 0.3}),
    "ctrl": ("ctrl", {"n_positions": 1024, "dff": 88}),
    "cwm": ("cwm", {**ALTERNATING, "bos_token_id": 1}),
    "diffllama": ("diffllama", {}),
    "dots1": (
        "dots1",
        {
            "n_routed_experts": 6,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "first_k_dense_replace": 1,
            "n_group": 2,
            "topk_group": 1,
            "norm_topk_prob": True,
            **ALTERNATING,
        },
    ),
    "ernie4_5": ("ernie4_5", {}),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        {
            "moe_num_experts": 6,
            "moe_k": 2,
            "moe_intermediate_size": 20,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 1,
        },
    ),
    "exaone4": ("exaone4", ALTERNATING),
    "exaone_moe": ("exaone_moe", {**EXPERTS, **ALTERNATING, "n_group": 1, "topk_group": 1}),
    "flex_olmo": ("flex_olmo", {"num_experts": 6, "num_experts_per_tok": 2}),
    "gemma2, forced": (
        "gemma2",
        {**ALTERNATING, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 9.0},
    ),
    "gemma3, forced": ("gemma3_text", {**ALTERNATING, "query_pre_attn_scalar": 20}),
    "glm4_moe": (
        "glm4_moe",
        {
            "n_routed_experts": 6,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "first_k_dense_replace": 1,
            "n_group": 2,
            "topk_group": 1,
            "use_qk_norm": True,
        },
    ),
    "gpt_bigcode": ("gpt_bigcode", {"n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 1024}),
    "gpt_oss": (
        "gpt_oss",
        {**ALTERNATING, "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 20},
    ),
    "granite_swa": ("granite_swa", {**ALTERNATING, "attention_multiplier": 0.2}),
    "granitemoe": (
        "granitemoe",
        {
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "attention_multiplier": 0.2,
            "logits_scaling": 2.0,
        },
    ),
    "granitemoeshared": (
        "granitemoeshared",
        {
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "attention_multiplier": 0.2,
            "shared_intermediate_size": 30,
        },
    ),
    "helium": ("helium", {"hidden_size": 72}),
    "hunyuan_v1_dense": (
        "hunyuan_v1_dense",
        {"rope_parameters": {"rope_type": "dynamic", "alpha": 40.0, "factor": 1.0, "rope_theta": 10000.0}},
    ),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {"num_experts": 6, "moe_topk": 2}),
    "hyperclovax": ("hyperclovax", {}),
    "jais2": ("jais2", {}),
    "llama, forced": ("llama", {}),
    "minimax_m2": ("minimax_m2", {"num_local_experts": 6, "num_experts_per_tok": 2, "rotary_dim": 12}),
    "mixtral, forced": ("mixtral", {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 24}),
    "nanochat": ("nanochat", {}),
    "nemotron": ("nemotron", {}),
    "olmo": ("olmo", {"clip_qkv": 3.0}),
    "olmoe": ("olmoe", {**EXPERTS, "hidden_size": 72}),
    "persimmon": ("persimmon", {"head_dim": 8}),
    "phi": ("phi", {"partial_rotary_factor": 0.5}),
    "phimoe": ("phimoe", {"num_local_experts": 6, "num_experts_per_tok": 2}),
    "phi3, forced, short longrope": ("phi3", longrope(original=700, width=8)),
    "phi3, forced, long longrope": ("phi3", longrope(original=14, width=4)),
    "qwen3, forced": ("qwen3", {"tie_word_embeddings": True}),
    "qwen3_moe, forced": ("qwen3_moe", EXPERTS),
    "seed_oss": ("seed_oss", {}),
    "smollm3, forced": ("smollm3", {"num_hidden_layers": 5, "no_rope_layer_interval": 2}),
    "solar_open": (
        "solar_open",
        {
            "n_routed_experts": 6,
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 20,
            "n_group": 1,
            "topk_group": 1,
        },
    ),
    "opt, forced": ("opt", {"ffn_dim": 88, "word_embed_proj_dim": 48}),
    "stablelm": (
        "stablelm",
        {"partial_rotary_factor": 0.5, "head_dim": 8, "use_qkv_bias": True, "qk_layernorm": True},
    ),
    "starcoder2": ("starcoder2", {**WINDOWS, "use_bias": True}),
    "vaultgemma": ("vaultgemma", {**ALTERNATING, "query_pre_attn_scalar": 20}),
}

OPENED = "its tokens see those after them"
BY_ITSELF = "computes attention by itself"
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "attention is no causal one": ("bert", {"is_decoder": False}, OPENED),
    "chunked attention": ("llama4_text", {}, "chunked_attention"),
    "convolutions": ("lfm2", {"layer_types": ["conv", "full_attention", "conv"]}, "conv"),
    "linear attention": ("qwen3_next", {}, "linear_attention"),
    "recurrent state": ("rwkv", {}, "a state of its own"),
    "positions counted along the row": ("bart", {}, "no position_ids"),
    "keys wider than values": (
        "minicpm3",
        {
            "q_lora_rank": 12,
            "kv_lora_rank": 12,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
        },
        "its keys are 12 wide and its values 8",
    ),
    "an embedding of another width": (
        "electra",
        {"is_decoder": True, "embedding_size": 24},
        "its embedding is 24 wide and its hidden states 48",
    ),
    "a mask from the tokens": ("doge", {}, "a mask of its own"),
    "an older attention": ("xglm", {"d_model": 48, "attention_heads": 6, "num_layers": 2}, BY_ITSELF),
    "pictures": ("gemma3", {}, "pictures or sound"),
    "a rope that reads positions (Phi-3.5-MoE)": (
        "phimoe",
        {
            **(moe := longrope(original=14, width=8)),
            "rope_parameters": {**moe["rope_parameters"], "short_mscale": 1.1, "long_mscale": 1.3},
        },
        "its forward does not run without numbers",
    ),
    "a rope of the longest text, for each kind of layers": (
        "gemma3_text",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            }
        },
        "its rope (dynamic)",
    ),
}
"""What paged attention cannot run, each with words of the reason."""
