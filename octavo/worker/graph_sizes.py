"""How many tokens the steps have that graphs are captured for: numbers only, for `octavo plan` too."""

from __future__ import annotations

MIXED_SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048)
"""Tokens of steps that hold chunks."""


def single_sizes(max_seqs: int) -> list[int]:
    """Every size that pays: matrix products work in tiles of 8 tokens, and larger steps hide more padding."""
    sizes = [1, 2, 3, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, 512, 32)]
    sizes += range(512, max_seqs, 64)
    return [size for size in sizes if size < max_seqs] + [max_seqs]


def mixed_sizes(max_tokens: int) -> list[int]:
    """Those that a step of at most `max_tokens` can have."""
    return [size for size in MIXED_SIZES if size <= max_tokens]
