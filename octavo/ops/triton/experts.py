"""The experts of a mixture on a GPU: how the kernels of expert_products.py are launched.

How the work is cut is told in expert_tiles.py. What it costs is the reading of weights until hundreds of
tokens: an H100 reads 3.0 TB/s. Qwen3-30B-A3B (48 layers of 128 experts, E = 2048, F = 768, 8 of a token) at
one token reads 75 MB of experts a layer, 25 us, and with all that is not experts 3.3 billion parameters,
6.7 GB, 2.2 ms for the model. 256 tokens touch nearly all experts, 1.2 GB a layer: 0.4 ms, 20 ms for the
model's 61 GB. At 2048 tokens a layer's products are 155 GFLOP, 0.2 ms at 750 TFLOP/s: reading still is what
counts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton

from octavo.base.errors import EngineError
from octavo.ops.experts import SILU, SwiGLU
from octavo.ops.triton.expert_pairs import sort_pairs
from octavo.ops.triton.expert_products import down_kernel, gate_up_kernel, sum_kernel
from octavo.ops.triton.expert_tiles import INVARIANT, ExpertForm, ExpertTile, form_for, tile_for
from octavo.ops.triton.pdl import pdl_options

SUM_WIDTH = 1024


def experts(x_TE: torch.Tensor, *more: Any) -> torch.Tensor:
    """What `octavo.ops.experts` says."""
    return launch(x_TE, *more, form=form_for(len(x_TE)))


def experts_invariant(x_TE: torch.Tensor, *more: Any) -> torch.Tensor:
    """The same, a token's numbers the same bits in any batch.

    One cut for every number of tokens: rows of a matrix instruction do not mix, so neither who shares a
    token's tile nor its place there reaches its sums (see matmul_invariant.py).
    """
    return launch(x_TE, *more, form=INVARIANT)


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
    if not gate_up_XGE.is_contiguous() or not down_XEF.is_contiguous():
        raise EngineError("Experts are read from weights stored row by row. Copy these once when loading.")
    (tokens, width), num_pairs = x_TE.shape, experts_TK.numel()
    if tokens == 0:
        return torch.empty_like(x_TE)
    device, size = x_TE.device, x_TE.element_size()
    (num_experts, outputs, _), inner = gate_up_XGE.shape, down_XEF.shape[2]
    rows, num_tiles, options = _rows(experts_TK, num_experts, form)

    tile = gate_up_tile or tile_for(device, "gate_up", form, outputs, width, size)
    inner_PF = x_TE.new_empty(num_pairs, inner)
    gate_up_kernel[(triton.cdiv(outputs, tile.block_o), num_tiles)](
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
    y_PE = x_TE.new_empty(num_pairs, width)
    down_kernel[(triton.cdiv(width, tile.block_o), num_tiles)](
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
    return _sum(y_PE, added_TE, tokens)


def _rows(
    experts_TK: torch.Tensor, num_experts: int, form: ExpertForm
) -> tuple[tuple[torch.Tensor | None, ...], int, dict[str, Any]]:
    """What both products say about their rows: arguments, tiles of the grid, options."""
    rows: tuple[torch.Tensor | None, ...] = (experts_TK, None, None)
    num_tiles = experts_TK.numel()
    if form.is_sorted:
        pairs = sort_pairs(experts_TK, num_experts, form.block_p, form.sorted_at_once)
        rows, num_tiles = (experts_TK, pairs.pairs_P, pairs.tiles), pairs.max_tiles
    num_chosen = experts_TK.shape[1]
    options = {
        "CHOSEN": num_chosen,
        "BLOCK_P": form.block_p,
        "BLOCK_K": triton.next_power_of_2(num_chosen),
        **pdl_options(experts_TK.device),
    }
    return rows, num_tiles, options


def _sum(y_PE: torch.Tensor, added_TE: torch.Tensor | None, tokens: int) -> torch.Tensor:
    """Over the experts of each token, plus what is added: [T, E]."""
    num_pairs, width = y_PE.shape
    sum_TE = y_PE.new_empty(tokens, width)
    sum_kernel[(tokens, triton.cdiv(width, SUM_WIDTH))](
        y_PE,
        None if added_TE is None else added_TE.contiguous(),
        sum_TE,
        WIDTH=width,
        CHOSEN=num_pairs // tokens,
        BLOCK_E=SUM_WIDTH,
        num_warps=4,
        **pdl_options(y_PE.device),
    )
    return sum_TE


def _cut(tile: ExpertTile) -> dict[str, int]:
    return {
        "BLOCK_O": tile.block_o,
        "BLOCK_I": tile.block_i,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }
