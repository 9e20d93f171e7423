"""Slopes of linear biases, by which attention tells positions apart: ALiBi (Press et al. 2021).

What a bias is: ops/paged_plain.py.
"""

from __future__ import annotations


def bias_slopes(num_heads: int, most: float = 8.0) -> tuple[float, ...]:
    """A slope for each query head, all over 0.

    For a power of two, 2 ** (-most / heads) and its powers. Other numbers of heads have the slopes of the
    next smaller power of two, then every other one of those of the next larger.
    """
    steps = 1 << (num_heads - 1).bit_length()
    order = [*range(2, steps + 1, 2), *range(1, steps + 1, 2)] if steps > num_heads else range(1, steps + 1)
    return tuple(2.0 ** (-most * step / steps) for step in order)[:num_heads]
