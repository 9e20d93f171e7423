"""EncoderConfig: the numbers of an encoder, read from a Hugging Face config and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.layers.activations import ACTIVATIONS
from octavo.models.decoder_config import MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, read_count, read_number
from octavo.weights.config_json import MAX_CONTEXT, first_position
from octavo.weights.encoder_shapes import has_positions, may_narrow

SPELLINGS = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "activation": "hidden_act",
}
"""DistilBERT's names -> everybody else's."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    head_dim: int
    num_positions: int
    first_position: int
    """Of a text's first token."""
    has_positions: bool
    """Each position has an embedding, added to the token's."""
    embedding_size: int
    """Width of the embeddings; another one than hidden_size is projected to it."""
    num_segments: int
    """Kinds of segments a token may be told to belong to; 0: no token is."""
    norm_epsilon: float
    activation: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EncoderConfig:
        """Raises ModelFileError naming the entry (and both numbers where two disagree)."""
        values = {SPELLINGS.get(name, name): value for name, value in config.items()}
        kind = values.get("position_embedding_type") or "absolute"
        if kind != "absolute":
            raise ModelFileError(
                f"position_embedding_type is {str(kind)[:40]!r}; only 'absolute' is supported."
            )
        width = read_count(values, "hidden_size", MAX_WIDTH)
        num_heads = read_count(values, "num_attention_heads", MAX_WIDTH)
        if width % num_heads:
            raise ModelFileError(f"hidden_size {width} is not a multiple of num_attention_heads {num_heads}.")
        activation = values.get("hidden_act") or values.get("hidden_activation") or "gelu"
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise ModelFileError(
                f"hidden_act is {str(activation)[:40]!r}; supported are {', '.join(sorted(ACTIVATIONS))}."
            )
        return cls(
            vocab_size=read_count(values, "vocab_size", MAX_VOCAB),
            hidden_size=width,
            intermediate_size=read_count(values, "intermediate_size", MAX_WIDTH),
            num_layers=read_count(values, "num_hidden_layers", MAX_LAYERS),
            num_heads=num_heads,
            head_dim=width // num_heads,
            num_positions=read_count(values, "max_position_embeddings", MAX_CONTEXT),
            first_position=first_position(dict(config)),
            has_positions=has_positions(config),
            embedding_size=read_count(values, "embedding_size", MAX_WIDTH, width)
            if may_narrow(config)
            else width,
            num_segments=0
            if values.get("type_vocab_size") == 0
            else read_count(values, "type_vocab_size", 64, 2),
            norm_epsilon=read_number(values, "layer_norm_eps", 1e-12),
            activation=activation,
        )
