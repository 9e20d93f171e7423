"""Tensors of the families with recurrent layers, for dummy weights: names and shapes from the config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Config = dict[str, Any]


def _attention(config: Config, *, is_gated: bool = False, has_norms: bool = False) -> Shapes:
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or width // heads
    q, kv = heads * head_dim, (config.get("num_key_value_heads") or heads) * head_dim
    shapes: Shapes = {
        "self_attn.q_proj.weight": (2 * q if is_gated else q, width),
        "self_attn.k_proj.weight": (kv, width),
        "self_attn.v_proj.weight": (kv, width),
        "self_attn.o_proj.weight": (width, q),
    }
    if config.get("attention_bias"):
        shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
    if has_norms:
        shapes |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    return shapes


def _mamba2(config: Config, *, has_norm: bool = True, has_out_bias: bool = False) -> Shapes:
    width, heads = config["hidden_size"], config["mamba_n_heads"]
    inner = config.get("mamba_d_ssm") or (config.get("mamba_expand") or 2) * width
    convolved = inner + 2 * (config.get("mamba_n_groups") or 1) * config["mamba_d_state"]
    shapes: Shapes = {
        "mamba.in_proj.weight": (inner + convolved + heads, width),
        "mamba.out_proj.weight": (width, inner),
        "mamba.conv1d.weight": (convolved, 1, config.get("mamba_d_conv") or 4),
        "mamba.A_log": (heads,),
        "mamba.D": (heads,),
        "mamba.dt_bias": (heads,),
    }
    if config.get("mamba_proj_bias"):
        shapes["mamba.in_proj.bias"] = (inner + convolved + heads,)
    if has_out_bias:
        shapes["mamba.out_proj.bias"] = (width,)
    if config.get("mamba_conv_bias") is not False:
        shapes["mamba.conv1d.bias"] = (convolved,)
    return {**shapes, "mamba.norm.weight": (inner,)} if has_norm else shapes


def _mlp(config: Config, name: str, inner: int) -> Shapes:
    width = config["hidden_size"]
    shapes: Shapes = {
        f"{name}.gate_proj.weight": (inner, width),
        f"{name}.up_proj.weight": (inner, width),
        f"{name}.down_proj.weight": (width, inner),
    }
    if config.get("mlp_bias"):
        shapes |= {name.replace("weight", "bias"): shape[:1] for name, shape in shapes.items()}
    return shapes


def _granite(config: Config, index: int) -> Shapes:
    width, inner = config["hidden_size"], config.get("shared_intermediate_size") or 1024
    kinds = config.get("layer_types") or config.get("layers_block_type")
    is_attention = kinds is not None and kinds[index] in ("attention", "full_attention")
    has_bias = bool(config.get("mamba_proj_bias"))
    shapes: Shapes = {
        **(_attention(config) if is_attention else _mamba2(config, has_out_bias=has_bias)),
        "shared_mlp.input_linear.weight": (2 * inner, width),
        "shared_mlp.output_linear.weight": (width, inner),
    }
    experts = config.get("num_local_experts")
    if experts:
        inner = config["intermediate_size"]
        shapes["block_sparse_moe.router.layer.weight"] = (experts, width)
        shapes["block_sparse_moe.input_linear.weight"] = (experts, 2 * inner, width)
        shapes["block_sparse_moe.output_linear.weight"] = (experts, width, inner)
    return shapes


def _bamba(config: Config, index: int) -> Shapes:
    is_attention = index in (config.get("attn_layer_indices") or [])
    has_bias = bool(config.get("mamba_proj_bias"))
    mixer = _attention(config) if is_attention else _mamba2(config, has_out_bias=has_bias)
    return {**mixer, **_mlp(config, "feed_forward", config["intermediate_size"])}


def _falcon_h1(config: Config, index: int) -> Shapes:  # noqa: ARG001
    has_norm, has_out_bias = bool(config.get("mamba_rms_norm")), bool(config.get("projectors_bias"))
    return {
        **_attention(config),
        **_mamba2(config, has_norm=has_norm, has_out_bias=has_out_bias),
        **_mlp(config, "feed_forward", config["intermediate_size"]),
    }


def _qwen3_next(config: Config, index: int) -> Shapes:
    kinds = config.get("layer_types")
    period = config.get("full_attention_interval") or 4
    is_attention = kinds[index] == "full_attention" if kinds else (index + 1) % period == 0
    mixer = _attention(config, is_gated=True, has_norms=True) if is_attention else _delta(config)
    is_dense = index in (config.get("mlp_only_layers") or [])
    if is_dense or (index + 1) % (config.get("decoder_sparse_step") or 1):
        return {**mixer, **_mlp(config, "mlp", config["intermediate_size"])}
    width, experts = config["hidden_size"], config["num_experts"]
    shapes: Shapes = {
        **mixer,
        **_mlp(config, "mlp.shared_expert", config["shared_expert_intermediate_size"]),
        "mlp.gate.weight": (experts, width),
        "mlp.shared_expert_gate.weight": (1, width),
    }
    for expert in range(experts):
        shapes |= _mlp(config, f"mlp.experts.{expert}", config["moe_intermediate_size"])
    return shapes


def _delta(config: Config) -> Shapes:
    width, heads = config["hidden_size"], config["linear_num_value_heads"]
    inner = heads * config["linear_value_head_dim"]
    columns = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    return {
        "linear_attn.in_proj_qkvz.weight": (2 * columns + 2 * inner, width),
        "linear_attn.in_proj_ba.weight": (2 * heads, width),
        "linear_attn.conv1d.weight": (2 * columns + inner, 1, config.get("linear_conv_kernel_dim") or 4),
        "linear_attn.A_log": (heads,),
        "linear_attn.dt_bias": (heads,),
        "linear_attn.norm.weight": (config["linear_value_head_dim"],),
        "linear_attn.out_proj.weight": (width, inner),
    }


FAMILIES: dict[str, tuple[Callable[[Config, int], Shapes], str, str]] = {
    "bamba": (_bamba, "pre_ff_layernorm", "model.final_layernorm"),
    "falcon_h1": (_falcon_h1, "pre_ff_layernorm", "model.final_layernorm"),
    "granitemoehybrid": (_granite, "post_attention_layernorm", "model.norm"),
    "qwen3_next": (_qwen3_next, "post_attention_layernorm", "model.norm"),
}
"""model_type -> the tensors of a layer by its number, and the names of its second norm and of the last."""


def hybrid_shapes(config: Config) -> Shapes | None:
    """Every tensor of a model of these families; None for others, and where the config lacks a number."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return None
    layer_shapes, second_norm, last_norm = family
    try:
        width, vocab = config["hidden_size"], config["vocab_size"]
        shapes: Shapes = {"model.embed_tokens.weight": (vocab, width), f"{last_norm}.weight": (width,)}
        for index in range(config["num_hidden_layers"]):
            layer = layer_shapes(config, index)
            layer |= {"input_layernorm.weight": (width,), f"{second_norm}.weight": (width,)}
            shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    except (KeyError, IndexError, TypeError):
        return None
    return shapes if config.get("tie_word_embeddings") else {**shapes, "lm_head.weight": (vocab, width)}
