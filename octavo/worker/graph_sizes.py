"""How many tokens the steps have that graphs are captured for: numbers only, for `octavo plan` too."""

from __future__ import annotations

MIXED_SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048)
"""Tokens of steps that hold chunks."""
SHARING_SEQS = 16
"""From so many sequences on attention may read what all begin with once for all."""


def single_sizes(max_seqs: int) -> list[int]:
    """Every size that pays: matrix products work in tiles of 8 tokens, and larger steps hide more padding."""
    sizes = [1, 2, 3, 4, *range(8, 64, 8), *range(64, 256, 16), *range(256, 512, 32)]
    sizes += range(512, max_seqs, 64)
    return [size for size in sizes if size < max_seqs] + [max_seqs]


def shared_sizes(max_seqs: int) -> list[int]:
    return [size for size in single_sizes(max_seqs) if size >= SHARING_SEQS]


def mixed_sizes(max_tokens: int) -> list[int]:
    return [size for size in MIXED_SIZES if size <= max_tokens]


def graph_sizes(max_seqs: int, max_tokens: int) -> list[int]:
    """The tokens of every graph that will be captured."""
    return [*single_sizes(max_seqs), *shared_sizes(max_seqs), *mixed_sizes(max_tokens)]
