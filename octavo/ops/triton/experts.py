"""The experts of a mixture in three kernels: gate and up with the gate, down with its weight, the sum.

A program multiplies a tile of pairs, all of one expert, with BLOCK_O rows of that expert's matrix. Where the
rows come from is told in expert_pairs.py, how the work is cut in expert_tiles.py. A row's sums are added up
from column 0 to the end by one program, and a token's experts in the order of its choice: no atomic addition.

What it costs is the reading of weights until hundreds of tokens: an H100 reads 3.0 TB/s. Qwen3-30B-A3B (48
layers of 128 experts, E = 2048, F = 768, 8 of a token) at one token reads 75 MB of experts a layer, 25 us,
and with all that is not experts 3.3 billion parameters, 6.7 GB, 2.2 ms for the model. 256 tokens touch
nearly all experts, 1.2 GB a layer: 0.4 ms, 20 ms for the model's 61 GB. At 2048 tokens a layer's products
are 155 GFLOP, which take 0.2 ms at 800 TFLOP/s: reading still is what counts.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from octavo.base.errors import EngineError
from octavo.ops.experts import SILU, SwiGLU
from octavo.ops.triton.expert_pairs import SortedPairs, few_rows, sort_pairs, sorted_rows
from octavo.ops.triton.expert_tiles import INVARIANT, ExpertForm, ExpertTile, form_for, tile_for
from octavo.ops.triton.pdl import pdl_options

SUM_WIDTH = 1024


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
def _gate_up_kernel(  # noqa: PLR0913
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
def _down_kernel(  # noqa: PLR0913
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
def _sum_kernel(
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


def experts(
    x_TE: torch.Tensor,
    experts_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    gate_up_XGE: torch.Tensor,
    down_XEF: torch.Tensor,
    gate_up_bias_XG: torch.Tensor | None = None,
    down_bias_XE: torch.Tensor | None = None,
    gate: SwiGLU = SILU,
    added_TE: torch.Tensor | None = None,
) -> torch.Tensor:
    """What `octavo.ops.experts` says."""
    biases = gate_up_bias_XG, down_bias_XE
    form = form_for(len(x_TE))
    return launch(x_TE, experts_TK, weights_TK, gate_up_XGE, down_XEF, *biases, gate, added_TE, form=form)


def experts_invariant(
    x_TE: torch.Tensor,
    experts_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    gate_up_XGE: torch.Tensor,
    down_XEF: torch.Tensor,
    gate_up_bias_XG: torch.Tensor | None = None,
    down_bias_XE: torch.Tensor | None = None,
    gate: SwiGLU = SILU,
    added_TE: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same, a token's numbers the same bits in any batch.

    One cut for every number of tokens: rows of a matrix instruction do not mix, so neither who shares a
    token's tile nor its place there reaches its sums (see matmul_invariant.py).
    """
    biases = gate_up_bias_XG, down_bias_XE
    return launch(
        x_TE, experts_TK, weights_TK, gate_up_XGE, down_XEF, *biases, gate, added_TE, form=INVARIANT
    )


def launch(  # noqa: PLR0913
    x_TE: torch.Tensor,
    experts_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    gate_up_XGE: torch.Tensor,
    down_XEF: torch.Tensor,
    gate_up_bias_XG: torch.Tensor | None = None,
    down_bias_XE: torch.Tensor | None = None,
    gate: SwiGLU = SILU,
    added_TE: torch.Tensor | None = None,
    *,
    form: ExpertForm,
    gate_up_tile: ExpertTile | None = None,
    down_tile: ExpertTile | None = None,
) -> torch.Tensor:
    """`experts` in one form; tiles that are not given are chosen."""
    device, size = x_TE.device, x_TE.element_size()
    (tokens, width), num_chosen = x_TE.shape, experts_TK.shape[1]
    num_experts, outputs = gate_up_XGE.shape[:2]
    inner = outputs // 2
    _refuse_strided(gate_up_XGE, down_XEF)
    sum_TE = torch.empty_like(x_TE, memory_format=torch.contiguous_format)
    if tokens == 0:
        return sum_TE
    pairs: SortedPairs | None = None
    num_tiles = tokens * num_chosen
    if form.is_sorted:
        pairs = sort_pairs(experts_TK, num_experts, form.block_p)
        num_tiles = pairs.max_tiles
    rows = (experts_TK, None, None) if pairs is None else (experts_TK, pairs.pairs_P, pairs.tiles)
    options = {
        "CHOSEN": num_chosen,
        "BLOCK_P": form.block_p,
        "BLOCK_K": triton.next_power_of_2(num_chosen),
        **pdl_options(device),
    }

    tile = gate_up_tile or tile_for(device, "gate_up", form, outputs, width, size)
    inner_PF = x_TE.new_empty(tokens * num_chosen, inner)
    _gate_up_kernel[(triton.cdiv(outputs, tile.block_o), num_tiles)](
        x_TE.contiguous(),
        *rows,
        gate_up_XGE,
        gate_up_bias_XG,
        inner_PF,
        tokens,
        WIDTH=width,
        OUTPUTS=outputs,
        ALPHA=gate.alpha,
        LIMIT=gate.limit if gate.limit < math.inf else None,
        OFFSET=gate.offset,
        **_cut(tile),
        **options,
    )
    tile = down_tile or tile_for(device, "down", form, width, inner, size)
    y_PE = x_TE.new_empty(tokens * num_chosen, width)
    _down_kernel[(triton.cdiv(width, tile.block_o), num_tiles)](
        inner_PF,
        *rows,
        weights_TK,
        down_XEF,
        down_bias_XE,
        y_PE,
        tokens,
        INNER=inner,
        OUTPUTS=width,
        **_cut(tile),
        **options,
    )
    _sum_kernel[(tokens, triton.cdiv(width, SUM_WIDTH))](
        y_PE,
        None if added_TE is None else added_TE.contiguous(),
        sum_TE,
        WIDTH=width,
        CHOSEN=num_chosen,
        BLOCK_E=SUM_WIDTH,
        num_warps=4,
        **pdl_options(device),
    )
    return sum_TE


def _cut(tile: ExpertTile) -> dict[str, int]:
    return {
        "BLOCK_O": tile.block_o,
        "BLOCK_I": tile.block_i,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _refuse_strided(*weights: torch.Tensor) -> None:
    if not all(weight.is_contiguous() for weight in weights):
        raise EngineError("Experts are read from weights stored row by row. Copy these once when loading.")
