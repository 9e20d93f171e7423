"""Which tensors a model must have, from its config: for checking files and for dummy weights.

A family is a line of the table. For model types that are not in it, nothing is known and nothing checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.weights.config_json import text_config
from octavo.weights.encoder_shapes import CLASSIFIES, encoder_shapes
from octavo.weights.pooling_files import ENCODERS, architecture_of, is_bare, num_labels

Shape = tuple[int, ...]

_EMBEDDING = re.compile(r"(?:model\.|language_model\.)*embed_tokens\.weight")


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family departs from plain Llama."""

    has_qkv_bias: bool = False
    has_qk_norm: bool = False
    has_sandwich_norms: bool = False
    """Norms also after attention and after the MLP."""
    is_tied_by_default: bool = False


FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "qwen2": Family(has_qkv_bias=True),
    "qwen3": Family(has_qk_norm=True),
    "ministral": Family(),
    "ministral3": Family(),
    "smollm3": Family(is_tied_by_default=True),
    "granite": Family(),
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
    layer = _layer_shapes(config, family)
    for index in range(config["num_hidden_layers"]):
        shapes.update({f"model.layers.{index}.{name}": shape for name, shape in layer.items()})
    shapes["model.norm.weight"] = (hidden,)
    if architecture_of(config).endswith(CLASSIFIES):
        shapes["score.weight"] = (num_labels(config), hidden)
    elif not is_bare(config) and not config.get("tie_word_embeddings", family.is_tied_by_default):
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _layer_shapes(config: dict[str, Any], family: Family) -> dict[str, Shape]:
    hidden, middle, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    shapes: dict[str, Shape] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (heads * head_dim, hidden),
        "self_attn.k_proj.weight": (kv_heads * head_dim, hidden),
        "self_attn.v_proj.weight": (kv_heads * head_dim, hidden),
        "self_attn.o_proj.weight": (hidden, heads * head_dim),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (middle, hidden),
        "mlp.up_proj.weight": (middle, hidden),
        "mlp.down_proj.weight": (hidden, middle),
    }
    biased: list[str] = []
    if family.has_qkv_bias or config.get("attention_bias"):
        biased += ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
    if config.get("attention_bias"):
        biased.append("self_attn.o_proj")
    if config.get("mlp_bias"):
        biased += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    for name in biased:
        shapes[f"{name}.bias"] = shapes[f"{name}.weight"][:1]
    if family.has_qk_norm:
        shapes |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    if family.has_sandwich_norms:
        shapes["pre_feedforward_layernorm.weight"] = (hidden,)
        shapes["post_feedforward_layernorm.weight"] = (hidden,)
    return shapes


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
    """The same without the prefix of a backbone behind which there is a head, where files leave it out."""
    first = next(iter(expected), "")
    prefix, _, bare = first.partition(".")
    if not bare or first in present or bare not in present:
        return expected
    return {name.removeprefix(f"{prefix}."): shape for name, shape in expected.items()}


def _check_vocabulary(config: dict[str, Any], present: set[str], shape_of: Callable[[str], Shape]) -> None:
    vocab = text_config(config).get("vocab_size")
    for name in sorted(name for name in present if _EMBEDDING.fullmatch(name)):
        shape = shape_of(name)
        if vocab is not None and shape and shape[0] != vocab:
            raise ModelFileError(f"The config's vocab_size is {vocab}, but {name!r} has {shape[0]} rows.")
