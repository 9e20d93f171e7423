"""Which tensors a model must have, from its config: for checking files and for dummy weights.

A family is a line of the table. For model types that are not in it, nothing is known and nothing checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.weights import expert_shapes, latent_shapes
from octavo.weights.config_json import text_config
from octavo.weights.encoder_shapes import CLASSIFIES, encoder_shapes
from octavo.weights.expert_shapes import Mixture
from octavo.weights.label_scores import ENCODERS, num_labels
from octavo.weights.pooling_files import architecture_of, is_bare
from octavo.weights.token_scores import names_tokens

Shape = tuple[int, ...]

_EMBEDDING = re.compile(r"(?:model\.|language_model\.)*embed_tokens\.weight")


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family departs from plain Llama."""

    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    has_sandwich_norms: bool = False
    """Norms also after attention and after the MLP."""
    has_sinks: bool = False
    is_qk_norm_whole: bool = False
    """Norms of queries and keys are over all heads together."""
    has_bias_by_default: bool = False
    """attention_bias, where a config does not say it."""
    is_tied_by_default: bool = False
    attention: Callable[[dict[str, Any]], dict[str, Shape]] | None = None
    """What stands in the place of queries, keys, values and their output."""
    mixture: Mixture | None = None
    """Experts in the place of MLPs."""


_DEEPSEEK = Family(
    attention=latent_shapes.attention,
    mixture=Mixture(shapes=latent_shapes.mixture, is_sparse=latent_shapes.is_sparse),
)
FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(has_qkv_bias=True),
    "qwen3": Family(has_qk_norm=True),
    "ministral": Family(),
    "ministral3": Family(),
    "smollm3": Family(is_tied_by_default=True),
    "granite": Family(),
    "granitemoe": Family(mixture=Mixture(shapes=expert_shapes.granite)),
    "mixtral": Family(mixture=Mixture(shapes=expert_shapes.MIXTRAL)),
    "olmoe": Family(has_qk_norm=True, is_qk_norm_whole=True, mixture=Mixture(shapes=expert_shapes.OLMOE)),
    "qwen2_moe": Family(
        has_qkv_bias=True,
        mixture=Mixture(shapes=expert_shapes.qwen2, is_sparse=expert_shapes.qwen_is_sparse),
    ),
    "qwen3_moe": Family(
        has_qk_norm=True,
        mixture=Mixture(shapes=expert_shapes.QWEN, is_sparse=expert_shapes.qwen_is_sparse),
    ),
    "gpt_oss": Family(
        has_sinks=True, has_bias_by_default=True, mixture=Mixture(shapes=expert_shapes.gpt_oss)
    ),
    **dict.fromkeys(latent_shapes.MODEL_TYPES, _DEEPSEEK),
    "glm4_moe": replace(_DEEPSEEK, attention=latent_shapes.glm_attention),
    "gemma": Family(is_tied_by_default=True),
    "gemma2": Family(has_sandwich_norms=True, is_tied_by_default=True),
    "gemma3_text": Family(has_qk_norm=True, has_sandwich_norms=True, is_tied_by_default=True),
}
"""model_type -> family."""


def expected_shapes(config: dict[str, Any]) -> dict[str, Shape] | None:
    """Hugging Face names and shapes of all tensors a checkpoint must have; None for unknown families.

    The config has passed `check_config`.
    """
    if config.get("model_type") in ENCODERS:
        return encoder_shapes(config, num_labels(config))
    family = FAMILIES.get(str(config.get("model_type")))
    needed = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
    if family is None or any(config.get(name) is None for name in needed):
        return None
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (vocab, hidden)}
    layer, dense = _layer_shapes(config, family), _mlp_shapes(config)
    mixture = family.mixture
    sparse = dense if mixture is None else mixture.shapes(config)
    if sparse is None:
        return None
    for index in range(config["num_hidden_layers"]):
        mlp = sparse if mixture is None or mixture.is_sparse(config, index) else dense
        shapes.update({f"model.layers.{index}.{name}": shape for name, shape in (layer | mlp).items()})
    shapes["model.norm.weight"] = (hidden,)
    if architecture_of(config).endswith(CLASSIFIES) and not names_tokens(config):
        shapes["score.weight"] = (num_labels(config), hidden)
    elif not is_bare(config) and not config.get("tie_word_embeddings", family.is_tied_by_default):
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _layer_shapes(config: dict[str, Any], family: Family) -> dict[str, Shape]:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if family.attention is not None:
        norms = ("input_layernorm.weight", "post_attention_layernorm.weight")
        return {**dict.fromkeys(norms, (hidden,)), **family.attention(config)}
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    shapes: dict[str, Shape] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (heads * head_dim, hidden),
        "self_attn.k_proj.weight": (kv_heads * head_dim, hidden),
        "self_attn.v_proj.weight": (kv_heads * head_dim, hidden),
        "self_attn.o_proj.weight": (hidden, heads * head_dim),
        "post_attention_layernorm.weight": (hidden,),
    }
    has_bias = config.get("attention_bias", family.has_bias_by_default)
    biased: list[str] = []
    if has_bias or config.get("qkv_bias", family.has_qkv_bias):
        biased += ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    if has_bias:
        biased.append("self_attn.o_proj")
    _add_biases(shapes, biased)
    if family.has_qk_norm:
        q_heads, k_heads = (heads, kv_heads) if family.is_qk_norm_whole else (1, 1)
        shapes |= {
            "self_attn.q_norm.weight": (q_heads * head_dim,),
            "self_attn.k_norm.weight": (k_heads * head_dim,),
        }
    if family.has_sinks:
        shapes["self_attn.sinks"] = (heads,)
    if family.has_sandwich_norms:
        shapes["pre_feedforward_layernorm.weight"] = (hidden,)
        shapes["post_feedforward_layernorm.weight"] = (hidden,)
    return shapes


def _mlp_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    hidden, middle = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, Shape] = {
        "mlp.gate_proj.weight": (middle, hidden),
        "mlp.up_proj.weight": (middle, hidden),
        "mlp.down_proj.weight": (hidden, middle),
    }
    if config.get("mlp_bias"):
        _add_biases(shapes, ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"])
    return shapes


def _add_biases(shapes: dict[str, Shape], names: list[str]) -> None:
    for name in names:
        shapes[f"{name}.bias"] = shapes[f"{name}.weight"][:1]


def check_shapes(config: dict[str, Any], names: Iterable[str], shape_of: Callable[[str], Shape]) -> None:
    """Raise ModelFileError where tensors and config disagree; `names` are Hugging Face names."""
    present = set(names)
    _check_vocabulary(config, present, shape_of)
    for name, shape in _as_in(present, expected_shapes(config) or {}).items():
        if name not in present:
            raise ModelFileError(
                f"The checkpoint has no tensor {name!r}, which its config asks for "
                f"({config.get('num_hidden_layers')} layers). "
                "It is incomplete, or the config is of another model."
            )
        if shape_of(name) != shape:
            raise ModelFileError(
                f"The tensor {name!r} has the shape {list(shape_of(name))}; its config says {list(shape)}."
            )


def _as_in(present: set[str], expected: dict[str, Shape]) -> dict[str, Shape]:
    """The same by the names in files: with the prefix of a backbone that has a head beside it, or without."""
    first = next(iter(expected), None)
    if first is None or first in present:
        return expected
    longer = next((name for name in sorted(present) if name.endswith(f".{first}")), None)
    if longer is not None:
        return {longer.removesuffix(first) + name: shape for name, shape in expected.items()}
    prefix, _, bare = first.partition(".")
    if not bare or bare not in present:
        return expected
    return {name.removeprefix(f"{prefix}."): shape for name, shape in expected.items()}


def _check_vocabulary(config: dict[str, Any], present: set[str], shape_of: Callable[[str], Shape]) -> None:
    vocab = text_config(config).get("vocab_size")
    for name in sorted(name for name in present if _EMBEDDING.fullmatch(name)):
        shape = shape_of(name)
        if vocab is not None and shape and shape[0] != vocab:
            raise ModelFileError(f"The config's vocab_size is {vocab}, but {name!r} has {shape[0]} rows.")
