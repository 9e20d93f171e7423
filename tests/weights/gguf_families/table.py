"""All families as GGUF files."""

from __future__ import annotations

from tests.weights.gguf_families.experts import MIXTURES
from tests.weights.gguf_families.family import GGUFFamily
from tests.weights.gguf_families.layer_norm import LAYER_NORM
from tests.weights.gguf_families.recurrent import RECURRENT
from tests.weights.gguf_families.rms_norm import RMS_NORM

FAMILIES: dict[str, dict[str, GGUFFamily]] = {**RMS_NORM, **LAYER_NORM, **MIXTURES, **RECURRENT}
"""GGUF's architecture -> its variants."""
