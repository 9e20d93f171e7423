"""Which tensors DeepSeek's layers and those like them have, for `shapes.py`, and what a token keeps."""

from __future__ import annotations

from typing import Any

from octavo.weights.expert_shapes import QWEN, Config, Shapes

MODEL_TYPES = ("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite")
_WIDTHS = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
_FIRST_WITH_EXPERTS = {"deepseek_v2": 0, "glm4_moe": 1, "glm4_moe_lite": 1}
"""Where the config does not say; 3 for the others."""


def row_width(config: dict[str, Any]) -> int | None:
    """Numbers that a layer keeps of a token; None for other models."""
    if config.get("model_type") not in MODEL_TYPES:
        return None
    return _width(config, "kv_lora_rank") + _width(config, "qk_rope_head_dim")


def attention(config: Config) -> Shapes:
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config.get("q_lora_rank")
    latent, rotated = _width(config, "kv_lora_rank"), _width(config, "qk_rope_head_dim")
    nope, value = _width(config, "qk_nope_head_dim"), _width(config, "v_head_dim")
    queries = heads * (nope + rotated)
    shapes: Shapes = {
        "self_attn.kv_a_proj_with_mqa.weight": (latent + rotated, hidden),
        "self_attn.kv_a_layernorm.weight": (latent,),
        "self_attn.kv_b_proj.weight": (heads * (nope + value), latent),
        "self_attn.o_proj.weight": (hidden, heads * value),
    }
    if rank is None:
        return shapes | {"self_attn.q_proj.weight": (queries, hidden)}
    return shapes | {
        "self_attn.q_a_proj.weight": (rank, hidden),
        "self_attn.q_a_layernorm.weight": (rank,),
        "self_attn.q_b_proj.weight": (queries, rank),
    }


def glm_attention(config: Config) -> Shapes:
    """Of GLM-4.5: ordinary heads, whose norms and biases the config may leave out."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads, width = config.get("num_key_value_heads") or heads, config.get("head_dim") or hidden // heads
    shapes: Shapes = {"self_attn.o_proj.weight": (hidden, heads * width)}
    for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        shapes[f"self_attn.{name}_proj.weight"] = (count * width, hidden)
        if config.get("attention_bias"):
            shapes[f"self_attn.{name}_proj.bias"] = (count * width,)
        if config.get("use_qk_norm") and name != "v":
            shapes[f"self_attn.{name}_norm.weight"] = (width,)
    return shapes


def mixture(config: Config) -> Shapes | None:
    """Experts, and an MLP of all tokens beside them."""
    shapes, hidden = QWEN(config), config["hidden_size"]
    if shapes is None:
        return None
    if config.get("model_type") != "deepseek_v2":
        shapes["mlp.gate.e_score_correction_bias"] = shapes["mlp.gate.weight"][:1]
    num_shared = config.get("n_shared_experts")
    if isinstance(num_shared, int) and num_shared > 0:
        middle = config["moe_intermediate_size"] * num_shared
        shapes |= {
            "mlp.shared_experts.gate_proj.weight": (middle, hidden),
            "mlp.shared_experts.up_proj.weight": (middle, hidden),
            "mlp.shared_experts.down_proj.weight": (hidden, middle),
        }
    return shapes


def is_sparse(config: Config, layer: int) -> bool:
    """As mlp_layer_types says; else from the first layer that has experts, every moe_layer_freq-th."""
    types = config.get("mlp_layer_types")
    if isinstance(types, list) and layer < len(types):
        return bool(types[layer] == "sparse")
    first, period = config.get("first_k_dense_replace"), config.get("moe_layer_freq")
    if not isinstance(first, int):
        first = _FIRST_WITH_EXPERTS.get(str(config.get("model_type")), 3)
    return layer >= first and layer % (period if isinstance(period, int) and period > 0 else 1) == 0


def _width(config: Config, name: str) -> int:
    value = config.get(name)
    return _WIDTHS[name] if value is None else int(value)
