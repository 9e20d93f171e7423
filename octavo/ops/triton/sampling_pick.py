"""Second sampling kernel: from what the scan left to a token, one program per row.

A filtered row is first searched among its candidates, the blocks with the largest maxima: 4096 tokens
that stay in registers. If the filters may keep a token outside them (flat distributions, large top_k)
the whole row is searched, in a pass over it for each step.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
from __future__ import annotations

import triton
import triton.language as tl

from octavo.ops.sampling import choose, settings
from octavo.ops.triton.sampling_scan import (
    COLUMNS,
    FILTERED,
    GREEDY,
    KIND,
    NOTHING,
    packed_index,
    packed_value,
)
from octavo.ops.triton.sampling_weights import (
    ONE,
    bits_of,
    cut,
    exact_weights,
    limit_of,
    load_float,
    norm_of,
    place_of,
    probability,
    steepness,
    target_of,
    uniform_at,
)

TOP_K = tl.constexpr(settings.TOP_K)
TOP_P = tl.constexpr(settings.TOP_P)
MIN_P = tl.constexpr(settings.MIN_P)
NO_TOP_K = tl.constexpr(settings.NO_TOP_K)
FINE = tl.constexpr(choose.FINE)
BROKEN = tl.constexpr(choose.BROKEN)
EMPTY = tl.constexpr(choose.EMPTY)

_INFINITY = tl.constexpr(float("inf"))
_LARGEST_INT = tl.constexpr(0x7FFFFFFF)
_STAGES = tl.constexpr(3)
"""Tiles of a row on their way from memory at a time."""


# Parts of larger tensors: their alignment varies with the number of rows, and one load does not need it.
@triton.jit(do_not_specialize_on_alignment=["rows_ptr", "positions_ptr", "tokens_ptr", "codes_ptr"])
def pick_kernel(  # noqa: PLR0913
    logits_ptr,
    logits_stride,
    best_ptr,
    sums_ptr,
    maxima_ptr,
    candidates_ptr,  # int32 [S, NUM_CANDIDATES]: room for block numbers
    settings_ptr,
    rows_ptr,
    positions_ptr,
    tokens_ptr,
    codes_ptr,
    VOCAB: tl.constexpr,
    CHUNK: tl.constexpr,
    NUM_CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_CANDIDATES: tl.constexpr,
    PADDED_CHUNKS: tl.constexpr,
    PADDED_BLOCKS: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, PADDED_CHUNKS)
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    packed = tl.load(best_ptr + place * NUM_CHUNKS + chunk, mask=chunk < NUM_CHUNKS, other=NOTHING)
    best_packed = tl.max(packed, 0)
    best, token = packed_value(best_packed), packed_index(best_packed)
    code = tl.where(best < _INFINITY, tl.where(best > -_INFINITY, FINE, EMPTY), BROKEN)
    if settings_ptr is not None:
        line_ptr = settings_ptr + tl.load(rows_ptr + place) * COLUMNS
        kind = tl.load(line_ptr + KIND)
        if (kind != GREEDY) & (code == FINE):
            row_ptr = logits_ptr + place * logits_stride
            sums_ptr += place * NUM_CHUNKS
            steep = steepness(line_ptr)
            sums = tl.load(sums_ptr + chunk, mask=chunk < NUM_CHUNKS, other=0)
            norm = norm_of(sums, best, packed_value(packed), steep)
            uniform = uniform_at(line_ptr, tl.load(positions_ptr + place).to(tl.int64))
            token = tl.full((), -1, tl.int32)
            threshold = tl.full((), 0, tl.int32)
            if maxima_ptr is not None:  # noqa: SIM102 - the one is known when this is compiled
                if kind == FILTERED:
                    token = _draw_from_candidates(
                        row_ptr,
                        maxima_ptr + place * (NUM_CHUNKS * CHUNK // BLOCK),
                        candidates_ptr + place * NUM_CANDIDATES,
                        line_ptr, best, steep, norm, uniform,
                        VOCAB, BLOCK, NUM_CHUNKS * CHUNK // BLOCK, PADDED_BLOCKS, NUM_CANDIDATES,
                    )  # fmt: skip
                    if token < 0:
                        threshold = _row_threshold(row_ptr, line_ptr, best, steep, norm, VOCAB, CHUNK)
            if token < 0:
                token = draw_from_row(
                    row_ptr, sums_ptr, threshold, best, steep, norm, uniform,
                    VOCAB, CHUNK, NUM_CHUNKS, PADDED_CHUNKS,
                )  # fmt: skip
    tl.store(tokens_ptr + place, tl.where(code == FINE, token, 0))
    tl.store(codes_ptr + place, code)


@triton.jit
def _draw_from_candidates(  # noqa: PLR0913
    row_ptr,
    maxima_ptr,
    candidates_ptr,
    line_ptr,
    best,
    steep,
    norm,
    uniform,
    VOCAB: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_BLOCKS: tl.constexpr,
    PADDED_BLOCKS: tl.constexpr,
    NUM_CANDIDATES: tl.constexpr,
):
    """A token, or -1 if the filters may keep tokens that are not among the candidates."""
    # At most NUM_CANDIDATES blocks hold a probability above `outside`, and nothing else does.
    block = tl.arange(0, PADDED_BLOCKS)
    maxima = tl.load(maxima_ptr + block, mask=block < NUM_BLOCKS, other=-_INFINITY)
    maxima = tl.where(block < NUM_BLOCKS, bits_of(probability(maxima, best, steep, norm)), -1)
    outside = cut(maxima, 1, NUM_CANDIDATES + 1)
    is_chosen = (maxima > outside).to(tl.int32)
    tl.store(candidates_ptr + tl.cumsum(is_chosen, 0) - 1, block, mask=is_chosen > 0)
    num_chosen = tl.sum(is_chosen, 0)
    tl.debug_barrier()  # all threads see all block numbers, which stand in the order of the row

    lane = tl.arange(0, NUM_CANDIDATES * BLOCK)
    is_inside = lane // BLOCK < num_chosen
    index = tl.load(candidates_ptr + lane // BLOCK, mask=is_inside, other=0) * BLOCK + lane % BLOCK
    is_inside = is_inside & (index < VOCAB)
    x = tl.load(row_ptr + index, mask=is_inside, other=-_INFINITY).to(tl.float32)
    p = probability(x, best, steep, norm)
    bits = tl.where(is_inside & (bits_of(p) > outside), bits_of(p), -1)
    weights = tl.where(bits >= 0, exact_weights(p), 0)

    threshold = _min_p_threshold(line_ptr, norm)
    top_k = tl.load(line_ptr + TOP_K)
    if top_k <= tl.sum((bits >= 0).to(tl.int32), 0):
        threshold = tl.maximum(threshold, cut(bits, 1, top_k))
    top_p = load_float(line_ptr + TOP_P)
    if top_p < 1.0:
        kept = tl.sum(tl.where(bits >= threshold, weights, 0), 0)
        is_whole = _is_whole(line_ptr)
        limit = limit_of(top_p, tl.where(is_whole, _one(), kept))
        # The nucleus can be told if the filters before it end inside, or if it ends inside itself.
        if (threshold > outside) | (is_whole & (kept >= limit)):
            threshold = tl.maximum(threshold, cut(bits, weights, limit))
    token = tl.full((), -1, tl.int32)
    if threshold > outside:
        weights = tl.where(bits >= threshold, weights, 0)
        drawn = place_of(weights, target_of(uniform, tl.sum(weights, 0)))
        token = tl.load(candidates_ptr + drawn // BLOCK) * BLOCK + drawn % BLOCK
    return token


@triton.jit
def _min_p_threshold(line_ptr, norm):
    return bits_of(norm * load_float(line_ptr + MIN_P).to(tl.float32))


@triton.jit
def _is_whole(line_ptr):
    """Whether top_p sees the untouched distribution: it weighs 1 by definition."""
    return (tl.load(line_ptr + TOP_K) >= NO_TOP_K) & (load_float(line_ptr + MIN_P) == 0.0)


@triton.jit
def _one():
    return tl.full((), ONE, tl.float64).to(tl.int64)


@triton.jit
def _load_bits(row_ptr, index, best, steep, norm, VOCAB: tl.constexpr):
    """Bits of probabilities, 0 past the vocabulary."""
    x = tl.load(row_ptr + index, mask=index < VOCAB, other=-_INFINITY).to(tl.float32)
    return bits_of(probability(x, best, steep, norm))


@triton.jit
def _kept_weights(bits, threshold):
    return tl.where(bits >= threshold, exact_weights(bits.to(tl.float32, bitcast=True)), 0)


@triton.jit
def _row_threshold(row_ptr, line_ptr, best, steep, norm, VOCAB: tl.constexpr, TILE: tl.constexpr):
    """Bits of the smallest probability that the filters keep, from passes over the whole row."""
    threshold = _min_p_threshold(line_ptr, norm)
    top_k = tl.load(line_ptr + TOP_K)
    if top_k < NO_TOP_K:
        found = row_cut(row_ptr, threshold - 1, top_k, best, steep, norm, False, VOCAB, TILE)
        threshold = tl.maximum(threshold, found)
    top_p = load_float(line_ptr + TOP_P)
    if top_p < 1.0:
        kept = tl.zeros((TILE,), tl.int64)
        for start in tl.range(0, VOCAB, TILE, num_stages=_STAGES):
            bits = _load_bits(row_ptr, start + tl.arange(0, TILE), best, steep, norm, VOCAB)
            kept += _kept_weights(bits, threshold)
        limit = limit_of(top_p, tl.where(_is_whole(line_ptr), _one(), tl.sum(kept, 0)))
        found = row_cut(row_ptr, threshold - 1, limit, best, steep, norm, True, VOCAB, TILE)
        threshold = tl.maximum(threshold, found)
    return threshold


@triton.jit
def row_cut(
    row_ptr,
    low,
    limit,
    best,
    steep,
    norm,
    BY_MASS: tl.constexpr,
    VOCAB: tl.constexpr,
    TILE: tl.constexpr,
):
    """Like `cut`, over a whole row, by mass or by count. Anything at or below `low` is as good as `low`.

    Every pass moves one end to a value that occurs: rows of few different values need few passes.
    """
    high = bits_of(norm)  # the largest probability: nothing is above it
    while high - low > 1:
        middle = low + (high - low) // 2
        above = tl.zeros((TILE,), tl.int64)
        next_above = tl.full((TILE,), _LARGEST_INT, tl.int32)
        next_below = tl.full((TILE,), -1, tl.int32)
        for start in tl.range(0, VOCAB, TILE, num_stages=_STAGES):
            bits = _load_bits(row_ptr, start + tl.arange(0, TILE), best, steep, norm, VOCAB)
            is_above = bits > middle
            above += _kept_weights(bits, middle + 1) if BY_MASS else is_above.to(tl.int64)
            next_above = tl.minimum(next_above, tl.where(is_above, bits, _LARGEST_INT))
            next_below = tl.maximum(next_below, tl.where(is_above, -1, bits))
        if tl.sum(above, 0) < limit:
            high = tl.max(next_below, 0)
        else:
            low = tl.min(next_above, 0) - 1
    return high


@triton.jit
def draw_from_row(  # noqa: PLR0913
    row_ptr,
    masses_ptr,  # int64 [NUM_CHUNKS]: room
    threshold,
    best,
    steep,
    norm,
    uniform,
    VOCAB: tl.constexpr,
    CHUNK: tl.constexpr,
    NUM_CHUNKS: tl.constexpr,
    PADDED_CHUNKS: tl.constexpr,
):
    """A token among those whose bits reach the threshold: first its chunk, then its place there."""
    for number in tl.range(0, NUM_CHUNKS, num_stages=_STAGES):
        bits = _load_bits(row_ptr, number * CHUNK + tl.arange(0, CHUNK), best, steep, norm, VOCAB)
        tl.store(masses_ptr + number, tl.sum(_kept_weights(bits, threshold), 0))
    tl.debug_barrier()
    chunk = tl.arange(0, PADDED_CHUNKS)
    masses = tl.load(masses_ptr + chunk, mask=chunk < NUM_CHUNKS, other=0)
    target = target_of(uniform, tl.sum(masses, 0))
    drawn = place_of(masses, target)
    target -= tl.sum(tl.where(chunk < drawn, masses, 0), 0)
    bits = _load_bits(row_ptr, drawn * CHUNK + tl.arange(0, CHUNK), best, steep, norm, VOCAB)
    return drawn * CHUNK + place_of(_kept_weights(bits, threshold), target)
