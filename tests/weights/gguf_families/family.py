"""A family as a GGUF file: the config of the model, the keys of the file, what happens to its tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from tests.weights.gguf_conversions import Named

WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER = 48, 6, 2, 12, 88
RMS = {"attention.layer_norm_rms_epsilon": 1e-5}
RMS6 = {"attention.layer_norm_rms_epsilon": 1e-6}
ROTATED = {**RMS6, "attention.key_length": 12, "attention.value_length": 12, "rope.dimension_count": 12}
WIDE = {**ROTATED, "rope.freq_base": 1e4}


@dataclass(frozen=True, kw_only=True)
class GGUFFamily:
    model_type: str
    overrides: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "gpt2"
    keys: dict[str, Any] = field(default_factory=dict)
    """Beside those of all; `None` leaves one of them out."""
    convert: Callable[[str, torch.Tensor, dict[str, Any]], Named] = lambda name, tensor, _: iter(
        [(name, tensor)]
    )
    """(Hugging Face's name, tensor, config) -> names that gguf's map knows, or GGUF's own, and tensors."""
