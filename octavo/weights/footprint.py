"""What a checkpoint takes in memory, by arithmetic on its shapes and config alone. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from octavo.base.integers import round_up
from octavo.messages.kv import KV_DTYPES
from octavo.weights.config_json import text_config
from octavo.weights.label_scores import sees_both_ways
from octavo.weights.latent_shapes import row_width
from octavo.weights.recurrent import recurrent_facts

if TYPE_CHECKING:
    from octavo.config.model import ModelConfig
    from octavo.weights.checkpoint import Checkpoint

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def num_parameters(checkpoint: Checkpoint) -> int:
    """Numbers that a model of it holds; a head that is tied to the embedding is held once."""
    is_tied = _is_tied(checkpoint)
    return sum(
        math.prod(checkpoint.shape(name))
        for name in checkpoint.tensor_names()
        if not (is_tied and name == "lm_head.weight")
    )


def weight_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """`dtype` is one of DTYPE_BYTES."""
    return num_parameters(checkpoint) * DTYPE_BYTES[dtype]


PACKED_BITS = {
    **dict.fromkeys(("TQ1_0", "TQ2_0"), 2.5),
    **dict.fromkeys(("IQ1_S", "IQ2_XXS"), 3.5),
    **dict.fromkeys(("Q2_K", "Q3_K", "IQ1_M", "IQ2_XS", "IQ2_S"), 4),
    **dict.fromkeys(("IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "MXFP4"), 4.5),
    **dict.fromkeys(("Q4_0", "Q4_1", "Q4_K"), 5),
    **dict.fromkeys(("Q5_0", "Q5_1", "Q5_K"), 6),
    "Q6_K": 7,
    "Q8_0": 8.5,
}
"""Bits per weight where native kernels keep a type packed; all others become plain numbers."""


PLAIN_BITS = {"F32": 32, "F16": 16, "BF16": 16}

ROWS_TOGETHER = 16
"""Of a matrix that native kernels keep; the last ones are filled up with zeros."""


def kept_bytes(checkpoint: Checkpoint, model: ModelConfig) -> int:
    """What the weights take under these options, which are resolved.

    Native kernels keep plain numbers as narrow as they are stored, if they compute in float32.
    """
    if not model.native_kernels:
        return weight_bytes(checkpoint, model.dtype)
    kinds = PACKED_BITS if model.packed_weights else {}
    if model.dtype == "float32":
        kinds = {**kinds, **PLAIN_BITS}
    others, is_tied = DTYPE_BYTES[model.dtype] * 8, _is_tied(checkpoint)
    num_bits = 0.0
    for name in checkpoint.tensor_names():
        shape, kind = checkpoint.shape(name), checkpoint.stored_kind(name)
        if is_tied and name == "lm_head.weight":
            continue
        num_bits += _num_filled_up(shape) * kinds[kind] if kind in kinds else math.prod(shape) * others
    return int(num_bits / 8)


def _num_filled_up(shape: Sequence[int]) -> int:
    """Numbers of a tensor whose matrices have whole groups of rows."""
    if len(shape) < 2:
        return math.prod(shape)
    *outer, rows, columns = shape
    return math.prod(outer) * round_up(rows, ROWS_TOGETHER) * columns


def _is_tied(checkpoint: Checkpoint) -> bool:
    return bool(text_config(checkpoint.config).get("tie_word_embeddings"))


def kv_bytes_per_token(config: dict[str, Any], dtype: str, *, keeps_latents_twice: bool = False) -> int:
    """What one token keeps in all layers; 0 of encoders, and where the config does not say.

    dtype: one of KV_DTYPES. keeps_latents_twice: as key and value, by which native kernels attend.
    """
    text = text_config(config)
    if sees_both_ways(text):
        return 0
    num_layers, kept = recurrent_facts(config).num_attention_layers, KV_DTYPES[dtype]
    row = row_width(text)
    if row is not None:
        return int((2 if keeps_latents_twice else 1) * row * num_layers * kept.num_bytes)
    heads = text.get("num_attention_heads") or 0
    kv_heads = text.get("num_key_value_heads") or heads
    head_dim = text.get("head_dim") or (text.get("hidden_size") or 0) // max(heads, 1)
    return int(2 * kv_heads * (head_dim * kept.num_bytes + kept.scale_bytes) * num_layers)
