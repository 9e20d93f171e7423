"""PromptVectors: a prompt given as the vectors that a model's embedding would look up, not as tokens."""

from __future__ import annotations

from typing import Literal

import msgspec

VectorType = Literal["float32", "float16", "bfloat16"]


class PromptVectors(msgspec.Struct, frozen=True, kw_only=True):
    """One vector per token, checked and complete. Never changed once made."""

    data: bytes
    """[num_tokens, width] row by row, little-endian."""
    dtype: VectorType
    num_tokens: int
    width: int
    largest: float
    """The largest magnitude among the numbers, which are all finite."""
    digest: bytes
    """Of data, type and shape: equal digests mean equal vectors."""
