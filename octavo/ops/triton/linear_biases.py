"""Linear biases inside attention kernels (see ops/paged_plain.py). Scores are powers of two there."""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def linear_biases(slopes, queries, keys, scale, ROUNDS: tl.constexpr):
    """What scores gain, in the shape that slopes and positions have together.

    Positions are below 2**24: float32 has them all.
    """
    queries, keys = queries.to(tl.float32), keys.to(tl.float32)
    if ROUNDS:
        own = _to_bfloat16(slopes * _to_bfloat16(queries))
        biases = (_to_bfloat16(slopes * _to_bfloat16(keys)) - own) * (scale * LOG2_E)
    else:
        biases = (slopes * LOG2_E) * (keys - queries)
    return biases


@triton.jit
def _to_bfloat16(x):
    """To the nearest, ties to even, and back: on the bits, as Triton's interpreter rounds another way."""
    bits = x.to(tl.uint32, bitcast=True)
    return (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).to(tl.float32, bitcast=True)
