"""Parts of the sampling kernels: probabilities as exact whole numbers, and thresholds on them.

Meaning and arithmetic are those of octavo/ops/sampling (draw.py, filters.py): a probability weighs
round(p * 2**40), sums of weights are exact whatever their order, and a filter keeps all tokens whose
probability is at least a threshold. Probabilities are never negative, so their bits, taken as integers,
sort as they do: thresholds are found on the bits, by halving, without a sort.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
from __future__ import annotations

import triton
import triton.language as tl

from octavo.ops.sampling import settings

TEMPERATURE = tl.constexpr(settings.TEMPERATURE)
KEYS = tl.constexpr(settings.KEYS)

ONE = tl.constexpr(2.0**40)
"""Weight of probability 1."""
_UNIT = tl.constexpr(2.0**-40)
_BITS_OF_ONE = tl.constexpr(0x3F800000)
_HALVINGS = tl.constexpr(30)
_ALL_FRACTION_BITS = tl.constexpr(2.0**23)
"""From here on float32 holds whole numbers only."""
_LOG2_E = tl.constexpr(1.4426950408889634)
_STEEPEST = tl.constexpr(1e38)
_UNIT_OF_53_BITS = tl.constexpr(2.0**-53)


@triton.jit
def load_float(address):
    """A float64 that stands bit by bit in a table of integers."""
    return tl.load(address).to(tl.float64, bitcast=True)


@triton.jit
def steepness(line_ptr):
    """Factor of logits under exp2. Kept finite, so that a difference of 0 stays 0 at any temperature."""
    return tl.minimum(1.0 / load_float(line_ptr + TEMPERATURE) * _LOG2_E, _STEEPEST).to(tl.float32)


@triton.jit
def exact_weights(p):
    """float32 in [0, 1] -> int64, rounded half to even."""
    scaled = p * ONE
    rounded = (scaled + _ALL_FRACTION_BITS) - _ALL_FRACTION_BITS
    return tl.where(scaled < _ALL_FRACTION_BITS, rounded, scaled).to(tl.int64)


@triton.jit
def probability(x, best, steep, norm):
    """norm is one over the sum of all exponentials, and so the probability of the largest logit."""
    return tl.exp2((x - best) * steep) * norm


@triton.jit
def norm_of(sums, best, chunk_best, steep):
    """From each chunk's sum of exponentials, in weights, taken against the chunk's own largest logit."""
    total = tl.sum((sums.to(tl.float32) * tl.exp2((chunk_best - best) * steep)).to(tl.int64), 0)
    return 1.0 / (total.to(tl.float32) * _UNIT)


@triton.jit
def bits_of(p):
    return p.to(tl.int32, bitcast=True)


@triton.jit
def uniform_at(line_ptr, position):
    """The row's float64 in [0, 1) for this position, as octavo/ops/sampling/random.py has it."""
    key = tl.load(line_ptr + KEYS) | (tl.load(line_ptr + KEYS + 1) << 32)
    low = position.to(tl.int32)
    high = (position >> 32).to(tl.int32)
    w0, w1, _, _ = tl.philox(key, low, high, low * 0, low * 0)
    bits = ((w0 >> 5).to(tl.int64) << 26) | (w1 >> 6).to(tl.int64)
    return bits.to(tl.float64) * _UNIT_OF_53_BITS


@triton.jit
def place_of(weights, target):
    """The first place where the sum of weights up to it, its own included, is above the target."""
    return tl.sum((tl.cumsum(weights, 0) <= target).to(tl.int32), 0)


@triton.jit
def target_of(uniform, total):
    """The whole number below the total that the uniform number falls on."""
    return (uniform * total.to(tl.float64)).to(tl.int64)


@triton.jit
def limit_of(top_p, total):
    """Whole weights are below top_p * total exactly if they are below this."""
    return tl.ceil(top_p * total.to(tl.float64)).to(tl.int64)


@triton.jit
def cut(bits, weights, limit):
    """The smallest bits such that what has larger ones weighs less than the limit (1 or more).

    -1 if everything together does. Entries whose bits are -1 do not count.
    """
    low = tl.full((), -1, tl.int32)  # too small, until `high` comes down to it
    high = tl.full((), _BITS_OF_ONE, tl.int32)  # nothing is above
    for _ in range(_HALVINGS):
        middle = (low + high) >> 1
        is_kept = tl.sum(tl.where(bits > middle, weights, 0), 0) < limit
        low = tl.where(is_kept, low, middle)
        high = tl.where(is_kept, middle, high)
    return high
