"""Decoders that were made into encoders: their layers are a decoder's, and every token sees all others.

EmbeddingGemma says so by use_bidirectional_attention, others by is_causal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.messages.kv import KVKind
from octavo.models.contract import Backbone, recurrent_layers
from octavo.models.decoder_config import BOTH_WAYS


def decoder_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the layers. Who sees whom is told to attention by a model that keeps nothing."""
    part = {name: value for name, value in config.items() if name not in ("is_causal", BOTH_WAYS)}
    window = config.get("sliding_window")
    if window and config.get("is_causal") is False:
        # It counts the tokens on each side; with use_bidirectional_attention those on both.
        part["sliding_window"] = 2 * window + 1
    return part


def check_layers(backbone: Backbone, name: str) -> None:
    """Raise ModelFileError for layers that cannot be computed so."""
    specs = backbone.kv_layers()
    is_usual = all(spec.kind is not KVKind.LATENT and spec.has_plain_softmax for spec in specs)
    if not is_usual or recurrent_layers(backbone):
        raise ModelFileError(
            f"This {name} was made into an encoder, whose tokens see both ways. That is supported for "
            "attention without latents, soft caps, sinks and linear biases, and without recurrent layers."
        )
