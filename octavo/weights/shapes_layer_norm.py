"""Tensors of the families with layer norms, for dummy weights: names and shapes from the config.

Files are not checked against them: some of the oldest have other names, and loading checks anyway. Each
family is a function from the config to the tensors outside its layers (names whole) and those of one layer
(names within it).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Config = dict[str, Any]
Parts = tuple[Shapes, str, Shapes]
"""Tensors outside the layers, what a layer's names begin with, tensors of a layer."""


def _linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs)}
    return {**shapes, f"{name}.bias": (outputs,)} if bias else shapes


def _norm(name: str, width: int, *, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (width,)}
    return {**shapes, f"{name}.bias": (width,)} if bias else shapes


def _sizes(config: Config) -> tuple[int, int, int, int]:
    """Width, inner width, columns of all queries and of all keys."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or width // heads
    kv_heads = config.get("num_key_value_heads") or heads
    return width, config.get("intermediate_size") or 4 * width, heads * head_dim, kv_heads * head_dim


def _gpt2(config: Config) -> Parts:
    width, inner, q, kv = _sizes(config)
    vocab, positions = config["vocab_size"], config["max_position_embeddings"]
    outside: Shapes = {
        "transformer.wte.weight": (vocab, width),
        "transformer.wpe.weight": (positions, width),
        **_norm("transformer.ln_f", width),
    }
    turned = {
        **_linear("attn.c_attn", q + 2 * kv, width),
        **_linear("attn.c_proj", width, q),
        **_linear("mlp.c_fc", inner, width),
        **_linear("mlp.c_proj", width, inner),
    }
    layer = {name: shape[::-1] for name, shape in turned.items()}
    return outside, "transformer.h", {**_norm("ln_1", width), **_norm("ln_2", width), **layer}


def _opt(config: Config) -> Parts:
    width, inner, q, kv = _sizes(config)
    narrow, has_bias = config.get("word_embed_proj_dim") or width, config.get("enable_bias", True)
    outside: Shapes = {
        "model.decoder.embed_tokens.weight": (config["vocab_size"], narrow),
        "model.decoder.embed_positions.weight": (config["max_position_embeddings"] + 2, width),
    }
    if narrow != width:
        outside |= _linear("model.decoder.project_in", width, narrow, bias=False)
        outside |= _linear("model.decoder.project_out", narrow, width, bias=False)
    if config.get("do_layer_norm_before", True) and not config.get("_remove_final_layer_norm"):
        outside |= _norm("model.decoder.final_layer_norm", width)
    layer = {
        **_norm("self_attn_layer_norm", width),
        **_norm("final_layer_norm", width),
        **_linear("self_attn.q_proj", q, width, bias=has_bias),
        **_linear("self_attn.k_proj", kv, width, bias=has_bias),
        **_linear("self_attn.v_proj", kv, width, bias=has_bias),
        **_linear("self_attn.out_proj", width, q, bias=has_bias),
        **_linear("fc1", inner, width, bias=has_bias),
        **_linear("fc2", width, inner, bias=has_bias),
    }
    return outside, "model.decoder.layers", layer


def _gpt_neox(config: Config) -> Parts:
    width, inner, q, kv = _sizes(config)
    has_bias = config.get("attention_bias", True)
    outside: Shapes = {
        "gpt_neox.embed_in.weight": (config["vocab_size"], width),
        **_norm("gpt_neox.final_layer_norm", width),
    }
    layer = {
        **_norm("input_layernorm", width),
        **_norm("post_attention_layernorm", width),
        **_linear("attention.query_key_value", q + 2 * kv, width, bias=has_bias),
        **_linear("attention.dense", width, q, bias=has_bias),
        **_linear("mlp.dense_h_to_4h", inner, width),
        **_linear("mlp.dense_4h_to_h", width, inner),
    }
    return outside, "gpt_neox.layers", layer


def _modern(config: Config, norm: str, layer: Shapes) -> Parts:
    """Named as Llama is, outside the layers."""
    width = config["hidden_size"]
    outside: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    return {**outside, **_norm(norm, width)}, "model.layers", {**_norm("input_layernorm", width), **layer}


def _qkv(config: Config, *, bias: bool) -> Shapes:
    width, _, q, kv = _sizes(config)
    return {
        **_linear("self_attn.q_proj", q, width, bias=bias),
        **_linear("self_attn.k_proj", kv, width, bias=bias),
        **_linear("self_attn.v_proj", kv, width, bias=bias),
    }


def _phi(config: Config) -> Parts:
    width, inner, q, _ = _sizes(config)
    outside, layers, layer = _modern(
        config,
        "model.final_layernorm",
        {
            **_qkv(config, bias=True),
            **_linear("self_attn.dense", width, q),
            **_linear("mlp.fc1", inner, width),
            **_linear("mlp.fc2", width, inner),
        },
    )
    return {**outside, "lm_head.bias": (config["vocab_size"],)}, layers, layer


def _starcoder2(config: Config) -> Parts:
    width, inner, q, _ = _sizes(config)
    bias = config.get("use_bias", True)
    layer = {
        **_norm("post_attention_layernorm", width),
        **_qkv(config, bias=bias),
        **_linear("self_attn.o_proj", width, q, bias=bias),
        **_linear("mlp.c_fc", inner, width, bias=bias),
        **_linear("mlp.c_proj", width, inner, bias=bias),
    }
    return _modern(config, "model.norm", layer)


FAMILIES: dict[str, tuple[Callable[[Config], Parts], str, bool]] = {
    "gpt2": (_gpt2, "lm_head", True),
    "gpt_neox": (_gpt_neox, "embed_out", False),
    "opt": (_opt, "lm_head", True),
    "phi": (_phi, "lm_head", False),
    "starcoder2": (_starcoder2, "lm_head", True),
}
"""model_type -> its tensors, the head's name, and whether the head is the embedding unless a config says."""


def layer_norm_shapes(config: Config) -> Shapes | None:
    """Every tensor of a model of these families; None for others."""
    family = FAMILIES.get(str(config.get("model_type")))
    needed = ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    if family is None or any(config.get(name) is None for name in needed):
        return None
    parts, head, is_tied = family
    outside, layers, layer = parts(config)
    for index in range(config["num_hidden_layers"]):
        outside |= {f"{layers}.{index}.{name}": shape for name, shape in layer.items()}
    if not config.get("tie_word_embeddings", is_tied):
        outside[f"{head}.weight"] = (
            config["vocab_size"],
            config.get("word_embed_proj_dim") or config["hidden_size"],
        )
    return outside
