"""The kernels of a mixture of experts: gate and up with the gate, down with the routing weight, the sum.

A program multiplies a tile of pairs, all of one expert, with BLOCK_O rows of that expert's matrix. Where the
tile's rows come from is told in expert_pairs.py. A row's sums are added up from column 0 to the end by one
program, and a token's experts in the order of its choice: no atomic addition.

P pairs of a tile, O output rows, I input columns, F inner width.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

from octavo.ops.triton.expert_pairs import few_rows, sorted_rows


@triton.jit
def _product(
    row_ptr_P1,
    wanted_P1,
    weight_ptr_1O,
    INPUTS: tl.constexpr,
    BLOCK_I: tl.constexpr,
):
    """Rows times rows of the weight, [P, O] in float32."""
    i_I = tl.arange(0, BLOCK_I)
    y_PO = tl.zeros([row_ptr_P1.shape[0], weight_ptr_1O.shape[1]], tl.float32)
    for start in range(0, INPUTS, BLOCK_I):
        if INPUTS % BLOCK_I == 0:
            x_PI = tl.load(row_ptr_P1 + (start + i_I)[None, :], mask=wanted_P1, other=0.0)
            weight_IO = tl.load(weight_ptr_1O + (start + i_I)[:, None])
        else:
            inside_I = start + i_I < INPUTS
            x_PI = tl.load(row_ptr_P1 + (start + i_I)[None, :], mask=wanted_P1 & inside_I[None, :], other=0.0)
            weight_IO = tl.load(weight_ptr_1O + (start + i_I)[:, None], mask=inside_I[:, None], other=0.0)
        y_PO = tl.dot(x_PI, weight_IO, y_PO, input_precision="ieee")
    return y_PO


@triton.jit
def _gated(y_PO, ALPHA: tl.constexpr, LIMIT: tl.constexpr, OFFSET: tl.constexpr):
    """[P, O / 2]; LIMIT None: there is none."""
    gate, up = tl.split(tl.reshape(y_PO, [y_PO.shape[0], y_PO.shape[1] // 2, 2]))
    if LIMIT is not None:
        gate = tl.minimum(gate, LIMIT)
        up = tl.minimum(tl.maximum(up, -LIMIT), LIMIT)
    return gate * tl.sigmoid(ALPHA * gate) * (up + OFFSET)


@triton.jit(do_not_specialize=["tokens"])
def gate_up_kernel(  # noqa: PLR0913
    x_ptr,
    experts_ptr,
    pairs_ptr,  # or None: few tokens, as the next
    tiles_ptr,
    weight_ptr,
    bias_ptr,  # or None
    inner_ptr,
    tokens,
    WIDTH: tl.constexpr,
    OUTPUTS: tl.constexpr,
    CHOSEN: tl.constexpr,
    ALPHA: tl.constexpr,
    LIMIT: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_K: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    if pairs_ptr is None:
        expert, pair_P, has_work = few_rows(experts_ptr, tl.program_id(1), tokens, CHOSEN, BLOCK_P, BLOCK_K)
    else:
        expert, pair_P, has_work = sorted_rows(pairs_ptr, tiles_ptr, tl.program_id(1), BLOCK_P)
    if has_work:
        wanted_P1 = (pair_P >= 0)[:, None]
        output_O = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
        # Outputs past the end repeat the last row and are not stored.
        row_O = expert.to(tl.int64) * OUTPUTS + tl.minimum(output_O, OUTPUTS - 1)
        token_P1 = (pair_P // CHOSEN).to(tl.int64)[:, None]
        y_PO = _product(
            x_ptr + token_P1 * WIDTH, wanted_P1, weight_ptr + row_O[None, :] * WIDTH, WIDTH, BLOCK_I
        )
        if bias_ptr is not None:
            y_PO += tl.load(bias_ptr + row_O).to(tl.float32)[None, :]
        inner_F = tl.program_id(0) * (BLOCK_O // 2) + tl.arange(0, BLOCK_O // 2)
        tl.store(
            inner_ptr + pair_P.to(tl.int64)[:, None] * (OUTPUTS // 2) + inner_F[None, :],
            _gated(y_PO, ALPHA, LIMIT, OFFSET).to(inner_ptr.dtype.element_ty),
            mask=wanted_P1 & (inner_F < OUTPUTS // 2)[None, :],
        )


@triton.jit(do_not_specialize=["tokens"])
def down_kernel(  # noqa: PLR0913
    inner_ptr,
    experts_ptr,
    pairs_ptr,  # or None: few tokens, as the next
    tiles_ptr,
    weights_ptr,
    weight_ptr,
    bias_ptr,  # or None
    y_ptr,
    tokens,
    INNER: tl.constexpr,
    OUTPUTS: tl.constexpr,
    CHOSEN: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_K: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    if pairs_ptr is None:
        expert, pair_P, has_work = few_rows(experts_ptr, tl.program_id(1), tokens, CHOSEN, BLOCK_P, BLOCK_K)
    else:
        expert, pair_P, has_work = sorted_rows(pairs_ptr, tiles_ptr, tl.program_id(1), BLOCK_P)
    if has_work:
        wanted_P = pair_P >= 0
        output_O = tl.program_id(0) * BLOCK_O + tl.arange(0, BLOCK_O)
        row_O = expert.to(tl.int64) * OUTPUTS + tl.minimum(output_O, OUTPUTS - 1)
        pair_P1 = pair_P.to(tl.int64)[:, None]
        y_PO = _product(
            inner_ptr + pair_P1 * INNER,
            wanted_P[:, None],
            weight_ptr + row_O[None, :] * INNER,
            INNER,
            BLOCK_I,
        )
        if bias_ptr is not None:
            y_PO += tl.load(bias_ptr + row_O).to(tl.float32)[None, :]
        y_PO *= tl.load(weights_ptr + pair_P, mask=wanted_P, other=0.0)[:, None]
        tl.store(
            y_ptr + pair_P1 * OUTPUTS + output_O[None, :],
            y_PO.to(y_ptr.dtype.element_ty),
            mask=wanted_P[:, None] & (output_O < OUTPUTS)[None, :],
        )


@triton.jit
def sum_kernel(
    y_ptr,  # [T, K, E]
    added_ptr,  # or None
    sum_ptr,
    WIDTH: tl.constexpr,
    CHOSEN: tl.constexpr,
    BLOCK_E: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    token = tl.program_id(0).to(tl.int64)
    column_E = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E)
    inside_E = column_E < WIDTH
    sum_E = tl.zeros([BLOCK_E], tl.float32)
    for k in tl.static_range(CHOSEN):
        part_ptrs = y_ptr + (token * CHOSEN + k) * WIDTH + column_E
        sum_E += tl.load(part_ptrs, mask=inside_E, other=0.0).to(tl.float32)
    if added_ptr is not None:
        sum_E += tl.load(added_ptr + token * WIDTH + column_E, mask=inside_E, other=0.0).to(tl.float32)
    tl.store(sum_ptr + token * WIDTH + column_E, sum_E.to(sum_ptr.dtype.element_ty), mask=inside_E)
