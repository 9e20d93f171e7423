"""First sampling kernel: every row's chunks, each by a program of its own.

A chunk leaves its largest logit with the lowest index, packed into one integer, and in rows that draw
the sum of its exponentials; in rows with filters also the maxima of its blocks. What is left does not
depend on the number of rows. Limit: reading the logits once (256 x 128256 in bf16: 66 MB, 22 us).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
from __future__ import annotations

import triton
import triton.language as tl

from octavo.ops.sampling import settings
from octavo.ops.triton.sampling_weights import exact_weights, steepness

COLUMNS = tl.constexpr(settings.COLUMNS)
KIND = tl.constexpr(settings.KIND)
GREEDY = tl.constexpr(settings.GREEDY)
FILTERED = tl.constexpr(settings.FILTERED)

_INFINITY = tl.constexpr(float("inf"))
_LAST_INDEX = tl.constexpr(0x7FFFFFFF)
NOTHING = tl.constexpr(-0x7F800001 << 32)
"""A packed -inf: what chunks that do not exist count as."""


@triton.jit
def pack(value, index):
    """int64 that sorts by value, then by lower index. 0.0 and -0.0 are equal."""
    bits = (value + 0.0).to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (index ^ _LAST_INDEX).to(tl.int64)


@triton.jit
def packed_value(packed):
    ordered = (packed >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def packed_index(packed):
    return (packed & _LAST_INDEX).to(tl.int32) ^ _LAST_INDEX


@triton.jit(do_not_specialize_on_alignment=["rows_ptr"])
def scan_kernel(  # noqa: PLR0913
    logits_ptr,
    logits_stride,
    best_ptr,  # int64 [S, NUM_CHUNKS]
    sums_ptr,  # int64 [S, NUM_CHUNKS], in units of 2**-40; None where all rows are greedy
    maxima_ptr,  # float32 [S, NUM_CHUNKS * CHUNK / BLOCK]; None where no row has filters
    settings_ptr,
    rows_ptr,
    VOCAB: tl.constexpr,
    CHUNK: tl.constexpr,
    NUM_CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)  # also where this chunk's results go
    place = program // NUM_CHUNKS
    first = (program % NUM_CHUNKS).to(tl.int32) * CHUNK
    index = first + tl.arange(0, CHUNK)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    x = tl.load(logits_ptr + place * logits_stride + index, mask=index < VOCAB, other=-_INFINITY)
    x = x.to(tl.float32)
    x = tl.where(x < _INFINITY, x, _INFINITY)  # NaN too: the maximum shows it
    best = tl.max(x, 0)
    best_index = tl.min(tl.where(x == best, index, _LAST_INDEX), 0)
    tl.store(best_ptr + program, pack(best, best_index))
    if settings_ptr is not None:
        line_ptr = settings_ptr + tl.load(rows_ptr + place) * COLUMNS
        kind = tl.load(line_ptr + KIND)
        if (kind != GREEDY) & (best < _INFINITY):
            base = tl.where(best == -_INFINITY, 0.0, best)
            weights = exact_weights(tl.exp2((x - base) * steepness(line_ptr)))
            tl.store(sums_ptr + program, tl.sum(weights, 0))
        if maxima_ptr is not None:  # noqa: SIM102 - the one is known when this is compiled
            if kind == FILTERED:
                maxima = tl.max(tl.reshape(x, (CHUNK // BLOCK, BLOCK)), 1)
                block = tl.arange(0, CHUNK // BLOCK)
                tl.store(maxima_ptr + program * (CHUNK // BLOCK) + block, maxima)
