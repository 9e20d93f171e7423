"""Tensor names: GGUF <-> Hugging Face, one small table per kind of layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

OUTSIDE_LAYERS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}

ROPE_FACTORS = "rope_freqs.weight"
"""Not a weight of the model: how llama3 rope scaling is stored."""
ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG = "rope_factors_short.weight", "rope_factors_long.weight"
"""How longrope is."""
NO_WEIGHTS = frozenset({ROPE_FACTORS, ROPE_FACTORS_SHORT, ROPE_FACTORS_LONG})

LLAMA_LAYER: Mapping[str, str] = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
QK_NORM_LAYER: Mapping[str, str] = MappingProxyType(
    {**LLAMA_LAYER, "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
)
MIXTRAL_LAYER: Mapping[str, str] = MappingProxyType({**LLAMA_LAYER, "ffn_gate_inp": "block_sparse_moe.gate"})
"""The same, and the router where there are experts."""
_WITHOUT_MLP: Mapping[str, str] = MappingProxyType(
    {name: ours for name, ours in LLAMA_LAYER.items() if not ours.startswith("mlp.")}
)
GRANITE_MOE_LAYER: Mapping[str, str] = MappingProxyType(
    {**_WITHOUT_MLP, "ffn_gate_inp": "block_sparse_moe.router.layer"}
)
QWEN2_MOE_LAYER: Mapping[str, str] = MappingProxyType(
    {
        **_WITHOUT_MLP,
        "ffn_gate_inp": "mlp.gate",
        "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
        "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
        "ffn_up_shexp": "mlp.shared_expert.up_proj",
        "ffn_down_shexp": "mlp.shared_expert.down_proj",
    }
)
QWEN3_MOE_LAYER: Mapping[str, str] = MappingProxyType(
    {
        **_WITHOUT_MLP,
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_gate_inp": "mlp.gate",
    }
)
GPT_OSS_LAYER: Mapping[str, str] = MappingProxyType(
    {
        **{name: ours for name, ours in LLAMA_LAYER.items() if not name.startswith("ffn_")},
        "post_attention_norm": "post_attention_layernorm",
        "attn_sinks": "self_attn.sinks",
        "ffn_gate_inp": "mlp.router",
    }
)
OLMO2_LAYER: Mapping[str, str] = MappingProxyType(
    {
        **{name: ours for name, ours in QK_NORM_LAYER.items() if name not in ("attn_norm", "ffn_norm")},
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
)
GEMMA2_LAYER: Mapping[str, str] = MappingProxyType(
    {
        **LLAMA_LAYER,
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    }
)
GEMMA3_LAYER: Mapping[str, str] = MappingProxyType({**QK_NORM_LAYER, **GEMMA2_LAYER})

DEEPSEEK2_LAYER: Mapping[str, str] = MappingProxyType(
    {
        **{name: ours for name, ours in LLAMA_LAYER.items() if name not in ("attn_k", "attn_v")},
        "attn_q_a": "self_attn.q_a_proj",
        "attn_q_a_norm": "self_attn.q_a_layernorm",
        "attn_q_b": "self_attn.q_b_proj",
        "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
        "attn_kv_a_norm": "self_attn.kv_a_layernorm",
        "attn_kv_b": "self_attn.kv_b_proj",
        "ffn_gate_inp": "mlp.gate",
        "exp_probs_b": "mlp.gate.e_score_correction_bias",
        "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
        "ffn_up_shexp": "mlp.shared_experts.up_proj",
        "ffn_down_shexp": "mlp.shared_experts.down_proj",
    }
)

_BARE = (".sinks", ".e_score_correction_bias", ".A_log", ".D", ".dt_bias")
"""Ends of what Hugging Face calls without .weight or .bias; some of them GGUF too."""

_LAYER_TENSOR = re.compile(r"blk\.(0|[1-9][0-9]{0,6})\.([a-z0-9_]+)(?:\.(weight|bias))?", re.ASCII)


def layer_index(name: str) -> int | None:
    """The layer that a GGUF tensor belongs to."""
    match = _LAYER_TENSOR.fullmatch(name)
    return int(match[1]) if match else None


def to_hugging_face(
    name: str,
    layer_names: Mapping[str, str],
    layers: str = "model.layers",
    outside: Mapping[str, str] = OUTSIDE_LAYERS,
) -> str | None:
    """The Hugging Face name of a GGUF tensor; None where the architecture has no such tensor."""
    match = _LAYER_TENSOR.fullmatch(name)
    if match is None:
        return outside.get(name)
    inner = layer_names.get(match[2])
    if inner is None:
        return None
    if inner.endswith(_BARE):
        return f"{layers}.{match[1]}.{inner}"
    return None if match[3] is None else f"{layers}.{match[1]}.{inner}.{match[3]}"
