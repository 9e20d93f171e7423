"""Linear layers for a few tokens: the weight streams from memory once. T tokens (1..4), I input, O output.

A program owns BLOCK_O rows of the weight and walks along I in tiles of BLOCK_I; the next tile is asked for
before the present one is multiplied, so every warp always has loads in flight. Sums are kept in float32, in
an order that depends on the tile shape only.

Weights are constant, so a program asks for its first tile before it waits for the kernel in front of it
(programmatic dependent launch): the memory is busy while that one drains.

V vectors of 16 bytes along a tile's I (what a thread loads at once), F gated width, Y outputs of a program:
its rows O, or half as many where gate and up rows meet.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl

from octavo.base.errors import EngineError
from octavo.ops.triton.pdl import pdl_options
from octavo.ops.triton.tuning import multiprocessors, tuned

PADDED_TOKENS = (1, 2, 4)
"""Numbers of tokens that have a kernel of their own; others run as the next larger one."""

WIDEST_STEP = 4096


@dataclass(frozen=True)
class MatvecTile:
    """How the work is cut. Rows and columns are powers of two."""

    block_o: int
    """Rows of the weight per program."""
    block_i: int
    """Columns per step."""
    warps: int
    prefetch_kib: int = 0
    """What each of the first programs (one per multiprocessor) asks into the L2 before it waits."""


@triton.jit
def _prefetch_l2(pointer, size):
    """Ask `size` bytes (a multiple of 16) from `pointer` on into the L2: one instruction of one thread."""
    tl.inline_asm_elementwise(
        """{
        .reg .pred first; .reg .u32 thread;
        mov.u32 thread, %tid.x;
        setp.eq.u32 first, thread, 0;
        @first cp.async.bulk.prefetch.L2.global [$1], $2;
        mov.u32 $0, 0;
        }""",
        "=r,l,r",
        [pointer.to(tl.int64), size],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )


@triton.jit
def _load_weights(row_ptrs, cols, INPUTS: tl.constexpr, EVEN: tl.constexpr):
    """One tile [1, BLOCK_O, BLOCK_I]. Nobody reads it again, so it is the first to leave the caches."""
    if EVEN:
        return tl.load(row_ptrs + cols, eviction_policy="evict_first")
    return tl.load(row_ptrs + cols, mask=cols < INPUTS, other=0.0, eviction_policy="evict_first")


@triton.jit
def _load_inputs(ptrs, cols, INPUTS: tl.constexpr, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(ptrs + cols).to(tl.float32)
    return tl.load(ptrs + cols, mask=cols < INPUTS, other=0.0).to(tl.float32)


@triton.jit
def _multiply(
    sums_TOV, squares_T1V, weights_1OI, x_ptrs, norm_ptr, cols, INPUTS: tl.constexpr, EVEN: tl.constexpr
):
    """Add one tile's products to the sums of each thread, and its inputs' squares where x is to be normed."""
    x_T1I = _load_inputs(x_ptrs, cols, INPUTS, EVEN)
    if norm_ptr is not None:
        squares_T1V += _sum_vectors(x_T1I * x_T1I, squares_T1V.shape[2])
        x_T1I *= _load_inputs(norm_ptr, cols, INPUTS, EVEN)
    return sums_TOV + _sum_vectors(weights_1OI.to(tl.float32) * x_T1I, sums_TOV.shape[2]), squares_T1V


@triton.jit
def _sum_vectors(products, VECTORS: tl.constexpr):
    """Sum what one thread loaded at once. Threads meet only at the end."""
    VECTOR: tl.constexpr = products.shape[2] // VECTORS
    return tl.sum(tl.reshape(products, [products.shape[0], products.shape[1], VECTORS, VECTOR]), axis=3)


@triton.jit(do_not_specialize=["prefetchers", "prefetch_bytes"])
def _matvec_kernel(  # noqa: PLR0913
    x_ptr,
    weight_ptr,
    bias_ptr,  # or None, as the next two
    norm_ptr,
    residual_ptr,
    y_ptr,
    tokens,
    outputs,
    epsilon,
    prefetchers,  # the first programs, which prefetch
    prefetch_bytes,  # so much each
    INPUTS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
    VECTOR: tl.constexpr,  # elements in 16 bytes
    GATED: tl.constexpr,  # the weight holds F gate rows over F up rows, and outputs is F
    USE_PDL: tl.constexpr,
):
    EVEN: tl.constexpr = INPUTS % BLOCK_I == 0
    STEPS: tl.constexpr = (INPUTS + BLOCK_I - 1) // BLOCK_I
    RANGES: tl.constexpr = 2 if GATED else 1
    BLOCK_Y: tl.constexpr = BLOCK_O // RANGES
    program = tl.program_id(0)

    # Gate and up rows of one output stand next to each other in the tile. Rows past the end repeat the last.
    tile_rows = tl.arange(0, BLOCK_O)
    rows_1O = program * BLOCK_Y + tile_rows[None, :] // RANGES
    rows_1O = tl.minimum(rows_1O, outputs - 1) + tile_rows[None, :] % RANGES * outputs
    row_ptrs = weight_ptr + rows_1O[:, :, None].to(tl.int64) * INPUTS
    cols = tl.arange(0, BLOCK_I)[None, None, :]

    weights = _load_weights(row_ptrs, cols, INPUTS, EVEN)
    if bias_ptr is not None:
        bias_1O = tl.load(bias_ptr + rows_1O)
    if USE_PDL:
        tl.extra.cuda.gdc_launch_dependents()
        if program < prefetchers:
            share = prefetch_bytes // RANGES
            share_ptr = weight_ptr + program * (share // (16 // VECTOR))
            _prefetch_l2(share_ptr, share)
            if GATED:
                _prefetch_l2(share_ptr + tl.full([], INPUTS, tl.int64) * outputs, share)
        tl.extra.cuda.gdc_wait()

    # The few values for the end are asked for here as well: a lone wave of programs would wait for them.
    tokens_T1 = tl.arange(0, TOKENS)[:, None]
    outputs_1Y = program * BLOCK_Y + tl.arange(0, BLOCK_Y)[None, :]
    places = tokens_T1 * outputs + outputs_1Y
    wanted = (tokens_T1 < tokens) & (outputs_1Y < outputs)
    if residual_ptr is not None:
        residual_TY = tl.load(residual_ptr + places, mask=wanted, other=0.0)
    x_ptrs = x_ptr + tl.minimum(tl.arange(0, TOKENS), tokens - 1)[:, None, None] * INPUTS

    sums_TOV = tl.zeros([TOKENS, BLOCK_O, BLOCK_I // VECTOR], tl.float32)
    squares_T1V = tl.zeros([TOKENS, 1, BLOCK_I // VECTOR], tl.float32)
    for step in range(1, STEPS):
        ahead = _load_weights(row_ptrs, cols + step * BLOCK_I, INPUTS, EVEN)
        present = cols + (step - 1) * BLOCK_I
        sums_TOV, squares_T1V = _multiply(
            sums_TOV, squares_T1V, weights, x_ptrs, norm_ptr, present, INPUTS, EVEN
        )
        weights = ahead
    last = cols + (STEPS - 1) * BLOCK_I
    sums_TOV, squares_T1V = _multiply(sums_TOV, squares_T1V, weights, x_ptrs, norm_ptr, last, INPUTS, EVEN)

    y_TO = tl.sum(sums_TOV, axis=2)
    if norm_ptr is not None:
        y_TO *= tl.rsqrt(tl.sum(squares_T1V, axis=2) / INPUTS + epsilon)
    if bias_ptr is not None:
        y_TO += bias_1O.to(tl.float32)
    if GATED:
        gate, up = tl.split(tl.reshape(y_TO, [TOKENS, BLOCK_Y, 2]))
        y_TO = gate / (1.0 + tl.exp(-gate)) * up
    if residual_ptr is not None:
        y_TO += residual_TY.to(tl.float32)
    tl.store(y_ptr + places, y_TO.to(y_ptr.dtype.element_ty), mask=wanted)


def matvec(
    x_TI: torch.Tensor,
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor | None = None,
    norm_weight_I: torch.Tensor | None = None,
    epsilon: float = 0.0,
    residual_TO: torch.Tensor | None = None,
    gated: bool = False,
) -> torch.Tensor:
    """What `octavo.ops.matvec` says, for at most 4 tokens."""
    rows, inputs = weight_OI.shape
    tile = chosen_tile(weight_OI.device, rows, inputs, x_TI.shape[0], weight_OI.element_size())
    return launch(x_TI, weight_OI, bias_O, norm_weight_I, epsilon, residual_TO, gated, tile=tile)


def launch(
    x_TI: torch.Tensor,
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor | None = None,
    norm_weight_I: torch.Tensor | None = None,
    epsilon: float = 0.0,
    residual_TO: torch.Tensor | None = None,
    gated: bool = False,
    *,
    tile: MatvecTile,
) -> torch.Tensor:
    """`matvec` cut as `tile` says."""
    tokens, inputs = x_TI.shape
    outputs = weight_OI.shape[0] // (2 if gated else 1)
    y_TO = torch.empty((tokens, outputs), dtype=x_TI.dtype, device=x_TI.device)
    if tokens == 0:
        return y_TO
    _refuse_strided(weight_OI)
    grid = (triton.cdiv(outputs, tile.block_o // (2 if gated else 1)),)
    _matvec_kernel[grid](
        x_TI.contiguous(),
        weight_OI,
        bias_O,
        norm_weight_I,
        None if residual_TO is None else residual_TO.contiguous(),
        y_TO,
        tokens,
        outputs,
        epsilon,
        _prefetchers(weight_OI, tile.prefetch_kib * 1024),
        tile.prefetch_kib * 1024,
        INPUTS=inputs,
        TOKENS=padded_tokens(tokens),
        BLOCK_O=tile.block_o,
        BLOCK_I=tile.block_i,
        VECTOR=16 // weight_OI.element_size(),
        GATED=gated,
        num_warps=tile.warps,
        **pdl_options(x_TI.device),
    )
    return y_TO


def padded_tokens(tokens: int) -> int:
    """The number of tokens of the kernel that `tokens` run in."""
    for padded in PADDED_TOKENS:
        if tokens <= padded:
            return padded
    raise EngineError(
        f"matvec takes at most {PADDED_TOKENS[-1]} tokens and got {tokens}. Use a matrix product."
    )


@cache
def chosen_tile(device: torch.device, rows: int, inputs: int, tokens: int, element_size: int) -> MatvecTile:
    """The tile measured for this weight and GPU, or one by rule of thumb."""
    tokens = padded_tokens(tokens)
    found = tuned(device, f"matvec_{tokens}", rows, inputs) if element_size == 2 else None
    return usual_tile(device, rows, inputs, tokens, element_size) if found is None else MatvecTile(**found)


def usual_tile(device: torch.device, rows: int, inputs: int, tokens: int, element_size: int) -> MatvecTile:
    """All columns at once where they are few, eight loads a thread, three programs a processor."""
    vector = 16 // element_size
    block_i = max(triton.next_power_of_2(inputs), 16)
    if block_i > WIDEST_STEP:
        block_i = WIDEST_STEP
        while block_i > 512 and inputs % block_i:
            block_i //= 2
    warps = 8 if block_i > 2048 else 4
    loads = 8 if tokens < PADDED_TOKENS[-1] else 4  # more tokens, more sums to hold in registers
    block_o = min(max(loads * warps * 32 * vector // block_i, 2), 16)
    while block_o > 2 and rows // block_o < 3 * multiprocessors(device):
        block_o //= 2
    return MatvecTile(block_o, block_i, warps)


def _prefetchers(weight_OI: torch.Tensor, bytes_each: int) -> int:
    """How many programs prefetch: one a processor, if the weight is so large."""
    if not bytes_each:
        return 0
    return min(multiprocessors(weight_OI.device), weight_OI.nbytes // bytes_each)


def _refuse_strided(weight_OI: torch.Tensor) -> None:
    if not weight_OI.is_contiguous():
        raise EngineError(
            "matvec reads weights stored row by row, [outputs, inputs]. Copy this one once when loading."
        )
