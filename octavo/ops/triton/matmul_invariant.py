"""x @ W^T + bias whose rows are the same bits in any batch. T tokens, I input, O output.

Why that holds. Every output element is the work of one program, which adds the products of its row in steps
of BLOCK_I from column 0 to the end: no split over I, no atomic addition. BLOCK_O and BLOCK_I depend on the
weight alone, never on T, so for every T the matrix unit gets the same instructions (on Hopper m64nNk16 with
N = BLOCK_O) in the same order of I. Rows of such an instruction do not mix, so neither the other rows of a
tile, nor a row's place in it, nor the masked rows that fill it up can reach a row's bits. Only how many
64-row instructions stand side by side in a program depends on T (FEW_TOKENS): which rows share a program,
not what happens to one.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl

from octavo.base.errors import EngineError
from octavo.ops.triton.tuning import tuned

FEW_TOKENS = 64
"""Up to here a program takes one instruction's worth of rows, above it twice as many."""

TILES_T_OF_GROUP = tl.constexpr(8)
"""Programs that run together share weights and inputs in the L2: 8 tiles of tokens, then the next outputs."""


@dataclass(frozen=True)
class InvariantTile:
    """How a product is cut, chosen by the weight and never by the tokens."""

    block_o: int
    block_i: int
    stages: int
    """Tiles of the weight and of the inputs on their way at any time, plus one."""


@triton.jit(do_not_specialize=["tokens"])
def _matmul_kernel(  # noqa: PLR0913
    x_ptr,
    weight_ptr,
    bias_ptr,  # or None
    y_ptr,
    tokens,
    outputs,
    inputs,
    BLOCK_T: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
    EVEN: tl.constexpr,  # BLOCK_I divides inputs
):
    tile_t, tile_o = _place(tl.program_id(0), tl.cdiv(tokens, BLOCK_T), tl.cdiv(outputs, BLOCK_O))
    token_T = tile_t * BLOCK_T + tl.arange(0, BLOCK_T)
    output_O = tile_o * BLOCK_O + tl.arange(0, BLOCK_O)
    i_I = tl.arange(0, BLOCK_I)
    x_ptrs = x_ptr + token_T[:, None].to(tl.int64) * inputs + i_I[None, :]
    # Outputs past the end repeat the last row and are not stored.
    weight_row_O = tl.minimum(output_O, outputs - 1).to(tl.int64)
    weight_ptrs = weight_ptr + weight_row_O[None, :] * inputs + i_I[:, None]
    wanted_T1 = (token_T < tokens)[:, None]

    y_TO = tl.zeros([BLOCK_T, BLOCK_O], tl.float32)
    for start in range(0, inputs, BLOCK_I):
        if EVEN:
            x_TI = tl.load(x_ptrs + start, mask=wanted_T1, other=0.0)
            weight_IO = tl.load(weight_ptrs + start)
        else:
            inside_I = start + i_I < inputs
            x_TI = tl.load(x_ptrs + start, mask=wanted_T1 & inside_I[None, :], other=0.0)
            weight_IO = tl.load(weight_ptrs + start, mask=inside_I[:, None], other=0.0)
        y_TO = tl.dot(x_TI, weight_IO, y_TO, input_precision="ieee")

    if bias_ptr is not None:
        y_TO += tl.load(bias_ptr + output_O, mask=output_O < outputs, other=0.0).to(tl.float32)[None, :]
    y_ptrs = y_ptr + token_T[:, None].to(tl.int64) * outputs + output_O[None, :]
    tl.store(y_ptrs, y_TO.to(y_ptr.dtype.element_ty), mask=wanted_T1 & (output_O < outputs)[None, :])


@triton.jit
def _place(program, tiles_t, tiles_o):
    """Which tile a program takes: within a group the tiles of tokens change fastest."""
    programs_of_group = TILES_T_OF_GROUP * tiles_o
    first_t = program // programs_of_group * TILES_T_OF_GROUP
    tiles_t_here = tl.minimum(tiles_t - first_t, TILES_T_OF_GROUP)
    within = program % programs_of_group
    return first_t + within % tiles_t_here, within // tiles_t_here


def matmul_invariant(
    x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None
) -> torch.Tensor:
    """What `octavo.ops.matmul_invariant` says."""
    outputs, inputs = weight_OI.shape
    tile = chosen_tile(weight_OI.device, outputs, inputs, weight_OI.element_size())
    return launch(x_TI, weight_OI, bias_O, tile=tile)


def launch(
    x_TI: torch.Tensor, weight_OI: torch.Tensor, bias_O: torch.Tensor | None = None, *, tile: InvariantTile
) -> torch.Tensor:
    """`matmul_invariant` cut as `tile` says."""
    tokens = x_TI.shape[0]
    outputs, inputs = weight_OI.shape
    if not weight_OI.is_contiguous():
        raise EngineError(
            "matmul_invariant reads weights stored row by row, [outputs, inputs]. Copy this one when loading."
        )
    y_TO = torch.empty((tokens, outputs), dtype=x_TI.dtype, device=x_TI.device)
    if tokens == 0:
        return y_TO
    block_t, warps = (64, 4) if tokens <= FEW_TOKENS else (128, 8)
    _matmul_kernel[(triton.cdiv(tokens, block_t) * triton.cdiv(outputs, tile.block_o),)](
        x_TI.contiguous(),
        weight_OI,
        bias_O,
        y_TO,
        tokens,
        outputs,
        inputs,
        BLOCK_T=block_t,
        BLOCK_O=tile.block_o,
        BLOCK_I=tile.block_i,
        EVEN=inputs % tile.block_i == 0,
        num_warps=warps,
        num_stages=tile.stages,
    )
    return y_TO


@cache
def chosen_tile(device: torch.device, outputs: int, inputs: int, element_size: int) -> InvariantTile:
    """The tile measured for this weight and GPU, or one by rule of thumb."""
    found = tuned(device, "matmul_invariant", outputs, inputs) if element_size == 2 else None
    return usual_tile(outputs, element_size) if found is None else InvariantTile(**found)


def usual_tile(outputs: int, element_size: int) -> InvariantTile:
    """Wide tiles for speed; narrower ones where a weight would keep few processors busy at one token."""
    if element_size > 2:  # exact float32 has no matrix unit: a tile that fits into registers
        return InvariantTile(block_o=64, block_i=32, stages=2)
    block_o = 128 if outputs > 8192 else 64 if outputs > 2048 else 32
    return InvariantTile(block_o=block_o, block_i=64, stages=4)
