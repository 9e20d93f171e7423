"""GGUF metadata -> a dict shaped like Hugging Face's config.json, checked against the tensors.

What differs between architectures is in `architectures.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.base.errors import ModelFileError
from octavo.weights.config_json import COUNT_LIMITS, check_config
from octavo.weights.gguf.architecture import Architecture
from octavo.weights.gguf.architectures import find_architecture
from octavo.weights.gguf.dequant import dequantize
from octavo.weights.gguf.keys import Keys, shortest
from octavo.weights.gguf.names import ROPE_FACTORS, ROPE_FACTORS_LONG, ROPE_FACTORS_SHORT, layer_index
from octavo.weights.gguf.reader import GGUFFile
from octavo.weights.gguf.rope import longrope, rope_scaling

TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""GGUF types that are plain numbers."""

SAMPLING_KEYS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
"""general.sampling.* -> generation_config.json."""


def build_config(file: GGUFFile) -> dict[str, Any]:
    """Translate the metadata. Raises ModelFileError for unknown architectures and for lies."""
    name, architecture = find_architecture(file.metadata)
    keys = Keys(file.metadata, name, file.tensors)
    vocab_size, hidden = _embedding(file, keys)
    config: dict[str, Any] = {
        "architectures": [architecture.class_name],
        "model_type": architecture.model_type,
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": _inner(keys, architecture),
        "num_hidden_layers": _num_layers(file, keys),
        "max_position_embeddings": keys.count("context_length"),
        architecture.epsilon: _epsilon(keys, architecture),
        "hidden_act": "silu",
        "mlp_bias": "blk.0.ffn_down.bias" in file.tensors,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "dtype": TORCH_NAMES.get(stored_type(file), "float32"),
        **special_tokens(file.metadata, vocab_size),
        **_experts(keys, architecture),
    }
    if architecture.attends:
        config |= _attention(file, keys, architecture, hidden)
    if not keys.flag("attention.causal", True):
        config["is_causal"] = False
    if architecture.extend is not None:
        architecture.extend(config, keys)
    check_config(config)
    return config


def _inner(keys: Keys, architecture: Architecture) -> int | None:
    """Width of MLPs; None where there need not be any."""
    inner = keys.optional_count("feed_forward_length") or keys.optional_count("expert_feed_forward_length")
    return keys.count("feed_forward_length") if inner is None and architecture.attends else inner


def _epsilon(keys: Keys, architecture: Architecture) -> float | None:
    if architecture.epsilon == "rms_norm_eps" or not architecture.attends:
        return keys.number("attention.layer_norm_rms_epsilon", 1e-6)
    return keys.number("attention.layer_norm_epsilon", 1e-5)


def _attention(file: GGUFFile, keys: Keys, architecture: Architecture, hidden: int) -> dict[str, Any]:
    heads = keys.count("attention.head_count")
    head_dim = (
        _head_dim(keys, hidden, heads) if architecture.head_dim is None else architecture.head_dim(keys)
    )
    rotated = _rotated(keys, head_dim, architecture)
    theta = keys.number("rope.freq_base", 10000.0)
    assert theta is not None, "the key has a default"
    found: dict[str, Any] = {
        "num_attention_heads": heads,
        "num_key_value_heads": keys.count_where_any("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "attention_bias": "blk.0.attn_output.bias" in file.tensors,
        "rope_theta": theta,
        "rope_scaling": _rope(file, keys, architecture, rotated, theta),
    }
    return (
        {**found, "partial_rotary_factor": _share(rotated, head_dim)}
        if architecture.may_rotate_part
        else found
    )


def _rope(
    file: GGUFFile, keys: Keys, architecture: Architecture, rotated: int, theta: float
) -> dict[str, Any] | None:
    short, long = _divisors(file, ROPE_FACTORS_SHORT), _divisors(file, ROPE_FACTORS_LONG)
    if short is not None and long is not None:
        return longrope(keys, short, long, head_dim=rotated)
    return rope_scaling(
        keys,
        _divisors(file, ROPE_FACTORS),
        head_dim=rotated,
        theta=theta,
        log_multiplier=architecture.log_multiplier,
    )


def _rotated(keys: Keys, head_dim: int, architecture: Architecture) -> int:
    """Values of a head that are rotated."""
    if architecture.head_dim is not None:
        return head_dim
    rotated = keys.count("rope.dimension_count", head_dim)
    if rotated == head_dim or (architecture.may_rotate_part and rotated < head_dim):
        return rotated
    raise ModelFileError(
        f"{keys.prefix}.rope.dimension_count is {rotated}, but a head has {head_dim}; that is not supported."
    )


def _share(part: int, whole: int) -> float:
    """The number that times `whole` is `part`, cut to whole numbers as configs mean it."""
    share = part / whole
    return share if int(whole * share) == part else (part + 0.5) / whole


def build_generation_config(metadata: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Default sampling values and special tokens, as generation_config.json has them."""
    found = special_tokens(metadata, vocab_size)
    for theirs, ours in SAMPLING_KEYS.items():
        value = metadata.get(f"general.sampling.{theirs}")
        if value is None:
            continue
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ModelFileError(
                f"general.sampling.{theirs} is {str(value)[:40]}; it must be a finite number."
            )
        found[ours] = int(value) if ours == "top_k" else shortest(float(value))
        found["do_sample"] = True
    return found


def special_tokens(metadata: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """bos, eos and padding ids that the file names. eos is a list where a turn has an end of its own."""
    keys = Keys(metadata, "tokenizer.ggml")
    found: dict[str, Any] = {}
    for ours, theirs in (("bos_token_id", "bos_token_id"), ("pad_token_id", "padding_token_id")):
        token = keys.token(theirs, vocab_size)
        if token is not None:
            found[ours] = token
    ends = [keys.token(name, vocab_size) for name in ("eos_token_id", "eot_token_id")]
    known = list(dict.fromkeys(token for token in ends if token is not None))
    if known:
        found["eos_token_id"] = known[0] if len(known) == 1 else known
    return found


def stored_type(file: GGUFFile) -> str:
    """The GGUF type that holds most weights, embeddings aside (they often have a type of their own)."""
    weights: dict[str, int] = {}
    for tensor in file.tensors.values():
        if tensor.name not in ("token_embd.weight", "output.weight"):
            size = tensor.num_bytes // tensor.kind.block_bytes * tensor.kind.block_size
            weights[tensor.kind.name] = weights.get(tensor.kind.name, 0) + size
    return max(weights, key=lambda name: weights[name], default="F32")


def _experts(keys: Keys, architecture: Architecture) -> dict[str, int]:
    """Nothing where there are none."""
    experts = keys.optional_count("expert_count")
    if experts is None:
        return {}
    if architecture.experts is None:
        raise ModelFileError(
            f"The GGUF model is a mixture of {experts} experts; models of the architecture {keys.prefix!r} "
            "are supported without experts only."
        )
    found = {"num_experts": experts, "num_experts_per_tok": keys.count("expert_used_count")}
    inner = keys.optional_count("expert_feed_forward_length")
    return found if inner is None else {**found, "moe_intermediate_size": inner}


def _embedding(file: GGUFFile, keys: Keys) -> tuple[int, int]:
    table = file.tensors.get("token_embd.weight")
    if table is None:
        raise ModelFileError("The GGUF file has no tensor 'token_embd.weight': it holds no language model.")
    hidden = keys.count("embedding_length")
    if len(table.shape) != 2 or table.shape[1] != hidden:
        raise ModelFileError(
            f"'token_embd.weight' has the shape {list(table.shape)}, but {keys.prefix}.embedding_length "
            f"is {hidden}."
        )
    rows = table.shape[0]
    vocab_size = keys.count("vocab_size", rows)
    if vocab_size != rows:
        raise ModelFileError(
            f"{keys.prefix}.vocab_size is {vocab_size}, but 'token_embd.weight' has {rows} rows."
        )
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and len(tokens) > rows:
        raise ModelFileError(
            f"The tokenizer has {len(tokens)} tokens, but 'token_embd.weight' has {rows} rows."
        )
    return rows, hidden


def _head_dim(keys: Keys, hidden: int, heads: int) -> int:
    head_dim = keys.optional_count("attention.key_length")
    if head_dim is None:
        if hidden % heads:
            raise ModelFileError(
                f"{keys.prefix}.embedding_length is {hidden}, not a multiple of the {heads} heads in "
                f"{keys.prefix}.attention.head_count."
            )
        head_dim = hidden // heads
    value_dim = keys.count("attention.value_length", head_dim)
    if value_dim != head_dim:
        raise ModelFileError(
            f"{keys.prefix}.attention.value_length is {value_dim}, but a head has {head_dim}; that is not "
            "supported."
        )
    return head_dim


def _num_layers(file: GGUFFile, keys: Keys) -> int:
    """Without the last ones, if they are for drafting."""
    stated, limit = keys.count("block_count"), COUNT_LIMITS["num_hidden_layers"]
    if stated > limit:
        raise ModelFileError(f"{keys.prefix}.block_count is {stated}; at most {limit} layers are possible.")
    indices = {index for name in file.tensors if (index := layer_index(name)) is not None}
    present = max(indices, default=-1) + 1
    if present != stated:
        raise ModelFileError(
            f"{keys.prefix}.block_count is {stated}, but there are tensors of {present} layers."
        )
    drafting = keys.optional_count("nextn_predict_layers") or 0
    if drafting >= stated:
        raise ModelFileError(
            f"{keys.prefix}.nextn_predict_layers is {drafting}, of {stated} layers in all; some must be left."
        )
    return stated - drafting


def _divisors(file: GGUFFile, name: str) -> npt.NDArray[np.float32] | None:
    """Of rotary frequencies; None where the file has none of this name."""
    tensor = file.tensors.get(name)
    if tensor is None:
        return None
    if len(tensor.shape) != 1 or tensor.shape[0] > COUNT_LIMITS["head_dim"]:
        raise ModelFileError(f"{name!r} has the shape {list(tensor.shape)}; one short row is expected.")
    values = np.empty(tensor.shape, dtype=np.float32)
    dequantize(file.packed(name), tensor.kind, values)
    return values
