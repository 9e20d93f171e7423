"""DecoderConfig: the numbers of a plain decoder, read from a Hugging Face config and checked."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.rope import RopeFacts

MAX_LAYERS = 4096
MAX_WIDTH = 2**20
MAX_VOCAB = 2**24
BOTH_WAYS = "use_bidirectional_attention"
SILU = ("silu", "swish")


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    attention_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    sliding_window: int | None
    rope: RopeFacts

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        *,
        may_be_partial: bool = False,
        activations: Collection[str] = SILU,
    ) -> DecoderConfig:
        """Raises ModelFileError naming the entry (and both numbers where two disagree).

        may_be_partial: the family may rotate a part of each head (partial_rotary_factor). activations:
        how configs call the only one that the family computes.
        """
        _check_direction(config)
        hidden_size = read_count(config, "hidden_size", MAX_WIDTH)
        num_heads = read_count(config, "num_attention_heads", MAX_WIDTH)
        num_kv_heads = read_count(config, "num_key_value_heads", MAX_WIDTH, default=num_heads)
        if num_heads % num_kv_heads:
            raise ModelFileError(
                f"num_attention_heads {num_heads} is not a multiple of num_key_value_heads {num_kv_heads}."
            )
        if config.get("head_dim") is None and hidden_size % num_heads:
            raise ModelFileError(
                f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_heads}, "
                "and the config gives no head_dim."
            )
        head_dim = read_count(config, "head_dim", MAX_WIDTH, default=hidden_size // num_heads)
        if head_dim % 2 or head_dim < 4:
            raise ModelFileError(f"head_dim is {head_dim}; it must be even and at least 4.")
        activation = config.get("hidden_activation") or config.get("hidden_act", "silu")
        if activation not in activations:
            raise ModelFileError(
                f"hidden_act is {activation!r}; only {next(iter(activations))!r} is supported here."
            )
        window = config.get("sliding_window")
        return cls(
            vocab_size=read_count(config, "vocab_size", MAX_VOCAB),
            hidden_size=hidden_size,
            intermediate_size=read_count(config, "intermediate_size", MAX_WIDTH),
            num_layers=read_count(config, "num_hidden_layers", MAX_LAYERS),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            rms_norm_eps=float(config.get("rms_norm_eps") or 1e-6),
            attention_bias=bool(config.get("attention_bias")),
            mlp_bias=bool(config.get("mlp_bias")),
            tie_word_embeddings=bool(config.get("tie_word_embeddings")),
            sliding_window=None if window is None else read_count(config, "sliding_window", 2**31),
            rope=RopeFacts.from_config(config, head_dim, may_be_partial=may_be_partial),
        )


def _check_direction(config: Mapping[str, Any]) -> None:
    """Decoders that were made into encoders are only pooled (see pooled/both_ways.py)."""
    stated = [name for name, both in (("is_causal", False), (BOTH_WAYS, True)) if config.get(name) is both]
    if stated:
        raise ModelFileError(
            f"The model's config has {stated[0]} {str(config[stated[0]]).lower()}: its tokens see those after"
            " them too, so it cannot write text. It can embed: leave out runner, or set it to pooling."
        )


def read_number(config: Mapping[str, Any], name: str, default: float) -> float:
    """A number over 0."""
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 < value < math.inf:
        raise ModelFileError(f"The model's config has {name} {value!r}; it must be a number over 0.")
    return float(value)


def read_count(config: Mapping[str, Any], name: str, most: int, default: int | None = None) -> int:
    """A whole number from 1 to `most`."""
    value = config.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ModelFileError(f"The model's config has {name} {value!r}; it must be between 1 and {most}.")
    return value
