"""Which layers of a model see all tokens before them and which only a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.base.errors import ModelFileError
from octavo.models.decoder_config import DecoderConfig

FULL, SLIDING = "full_attention", "sliding_attention"


def layer_types(config: Mapping[str, Any], num_layers: int, default: list[str]) -> list[str]:
    """The config's layer_types, or `default` where it lists none. Raises ModelFileError."""
    types = config.get("layer_types")
    if types is None:
        return default
    if not isinstance(types, list):
        raise ModelFileError(f"The model's layer_types is {str(types)[:40]!r}; it must be a list.")
    if len(types) != num_layers:
        raise ModelFileError(f"The model's config lists {len(types)} layer_types for {num_layers} layers.")
    unknown = [kind for kind in types if kind not in (FULL, SLIDING)]
    if unknown:
        raise ModelFileError(
            f"The model's layer_types name {str(unknown[0])[:40]!r}; {FULL} and {SLIDING} are supported."
        )
    return types


def every_nth_full(num_layers: int, period: int) -> list[str]:
    """All layers see a window but each `period`-th."""
    return [SLIDING if (index + 1) % period else FULL for index in range(num_layers)]


def windows_of(types: list[str], facts: DecoderConfig) -> list[int | None]:
    """By layer: the tokens that its queries see; None: all before them. Raises ModelFileError."""
    if SLIDING in types and facts.sliding_window is None:
        raise ModelFileError(
            f"The model's config has {types.count(SLIDING)} layers with a window, but no sliding_window."
        )
    return [facts.sliding_window if kind == SLIDING else None for kind in types]
