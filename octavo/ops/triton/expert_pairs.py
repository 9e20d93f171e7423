"""Which rows a tile of an expert's product has. A pair is a token and one of its K experts: token * K + k.

Few tokens need no sorting: each pair has a tile, in which every token has its row; the tile of the first
pair that names an expert does the work of all of them, the others end at once. More are sorted by expert in
one kernel, a program an expert; its table says what each tile does. Nothing waits for the host: grids are as
large as any choice of experts may need, and tiles that are not needed end at once.

P pairs of a tile, X experts, N pairs read at a time.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from octavo.ops.triton.pdl import pdl_options


class SortedPairs(NamedTuple):
    pairs_P: torch.Tensor
    """int32: all pairs by expert, those of one expert in their own order."""
    tiles: torch.Tensor
    """int32: the number of tiles, then for each the expert, its first place in pairs_P and the first place
    that is no more its expert's."""
    max_tiles: int


@triton.jit
def few_rows(experts_ptr, tile, tokens, CHOSEN: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr):
    """(expert, pair of each row or -1, whether this tile has work)."""
    token_T1 = tl.arange(0, BLOCK_T)[:, None]
    k_1K = tl.arange(0, BLOCK_K)[None, :]
    pair_TK = token_T1 * CHOSEN + k_1K
    inside_TK = (token_T1 < tokens) & (k_1K < CHOSEN)
    expert_TK = tl.load(experts_ptr + pair_TK, mask=inside_TK, other=-1)
    expert = tl.load(experts_ptr + tile)
    is_it_TK = expert_TK == expert
    first = tl.min(tl.min(tl.where(is_it_TK, pair_TK, BLOCK_T * CHOSEN), axis=1), axis=0)
    pair_T = tl.max(tl.where(is_it_TK, pair_TK, -1), axis=1)
    return expert, pair_T, first == tile


@triton.jit
def sorted_rows(pairs_ptr, tiles_ptr, tile, BLOCK_P: tl.constexpr):
    """The same of a table. It holds nothing for tiles past its number, which is looked at first."""
    has_work = tile < tl.load(tiles_ptr)
    entry_ptr = tiles_ptr + 1 + 3 * tile
    expert = tl.load(entry_ptr, mask=has_work, other=0)
    first = tl.load(entry_ptr + 1, mask=has_work, other=0)
    end = tl.load(entry_ptr + 2, mask=has_work, other=0)
    place_P = first + tl.arange(0, BLOCK_P)
    return expert, tl.load(pairs_ptr + place_P, mask=place_P < end, other=-1), has_work


@triton.jit(do_not_specialize=["num_pairs"])
def _sort_kernel(
    experts_ptr,
    pairs_ptr,
    tiles_ptr,
    num_pairs,
    EXPERTS: tl.constexpr,
    BLOCK_X: tl.constexpr,  # more than EXPERTS
    BLOCK_N: tl.constexpr,
    BLOCK_P: tl.constexpr,
    USE_PDL: tl.constexpr,
):
    if USE_PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()
    expert = tl.program_id(0)
    n_N = tl.arange(0, BLOCK_N)
    x_X = tl.arange(0, BLOCK_X)
    count_X = tl.zeros([BLOCK_X], tl.int32)
    for start in range(0, num_pairs, BLOCK_N):
        expert_N = tl.load(experts_ptr + start + n_N, mask=start + n_N < num_pairs, other=EXPERTS)
        count_X += tl.histogram(expert_N, BLOCK_X)
    tiles_X = tl.where(x_X < EXPERTS, (count_X + BLOCK_P - 1) // BLOCK_P, 0)
    first = tl.sum(tl.where(x_X < expert, count_X, 0), axis=0)
    end = first + tl.sum(tl.where(x_X == expert, count_X, 0), axis=0)
    first_tile = tl.sum(tl.where(x_X < expert, tiles_X, 0), axis=0)
    if expert == 0:
        tl.store(tiles_ptr, tl.sum(tiles_X, axis=0))
    for place in range(first, end, BLOCK_P):
        entry_ptr = tiles_ptr + 1 + 3 * (first_tile + (place - first) // BLOCK_P)
        tl.store(entry_ptr, expert)
        tl.store(entry_ptr + 1, place)
        tl.store(entry_ptr + 2, end)
    if first < end:
        place = first
        for start in range(0, num_pairs, BLOCK_N):
            expert_N = tl.load(experts_ptr + start + n_N, mask=start + n_N < num_pairs, other=EXPERTS)
            is_it_N = (expert_N == expert).to(tl.int32)
            place_N = place + tl.cumsum(is_it_N, axis=0) - 1
            tl.store(pairs_ptr + place_N, start + n_N, mask=is_it_N > 0)
            place += tl.sum(is_it_N, axis=0)


def sort_pairs(experts_TK: torch.Tensor, num_experts: int, block_p: int, at_once: int = 1024) -> SortedPairs:
    """block_p: rows of a tile. at_once: pairs that are read in one step, a power of two."""
    num_pairs = experts_TK.numel()
    max_tiles = num_pairs // block_p + min(num_experts, num_pairs)
    pairs_P = torch.empty(num_pairs, dtype=torch.int32, device=experts_TK.device)
    tiles = torch.empty(1 + 3 * max_tiles, dtype=torch.int32, device=experts_TK.device)
    _sort_kernel[(num_experts,)](
        experts_TK,
        pairs_P,
        tiles,
        num_pairs,
        EXPERTS=num_experts,
        BLOCK_X=max(triton.next_power_of_2(num_experts + 1), 64),
        BLOCK_N=at_once,
        BLOCK_P=block_p,
        num_warps=4 if at_once <= 1024 else 8,
        **pdl_options(experts_TK.device),
    )
    return SortedPairs(pairs_P, tiles, max_tiles)
