"""Attention of chunks over latent rows. A program's rows are (token, head) pairs, as in paged_chunks.

With the same tile a row's result depends on its own query and keys only, whatever its chunk or neighbours.

Limits on an H100, 2 T H L (2 C + R) operations: 16 chunks of 128 at context 2048 with 16 heads of 512 + 64
are 146 GFLOP, 195 us at 750 TFLOP/s.

S sequences, T query tokens, H heads, C width of the latent, R rotated width, W = C + R, B blocks, N tokens
per block. In the kernel M are a tile's rows (token, head).
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import torch
import triton
import triton.language as tl

from octavo.ops.triton.latent_states import (
    LatentTile,
    attend_latents,
    fitting,
    head_blocks,
    latent_constants,
    load_queries,
    row_bytes,
)
from octavo.ops.triton.paged_chunks import find_sequence, first_block


def latent_chunks(  # noqa: PLR0913
    q_THC: torch.Tensor,
    q_THR: torch.Tensor,
    pages_BNW: torch.Tensor,
    table_RM: torch.Tensor,
    rows_S: torch.Tensor,
    starts_S1: torch.Tensor,
    lengths_S: torch.Tensor,
    counts: torch.Tensor,
    out_THC: torch.Tensor,
    scale: float,
    *,
    max_tokens: int,
    max_seqs: int,
    singles_too: bool = False,
    tile: LatentTile | None = None,
) -> None:
    """Sums of latents of sequences counts[0] .. counts[1] - 1, in their tokens' rows of `out_THC`.

    All arguments as in `paged_chunks`.
    """
    constants = latent_constants(q_THC, q_THR, pages_BNW, out_THC, scale)
    if tile is None:
        tile = chunk_tile(constants["G"], constants["LATENT"], constants["ROTATED"], q_THC)
    rows = tile.rows
    num_blocks = max_tokens // (rows // constants["G"]) + max_seqs + 1
    _latent_chunks_kernel[(num_blocks, head_blocks(q_THC.shape[1]))](
        q_THC,
        q_THR,
        pages_BNW,
        table_RM,
        rows_S,
        starts_S1,
        lengths_S,
        counts,
        out_THC,
        q_THC.stride(0),
        q_THR.stride(0),
        table_RM.stride(0),
        out_THC.stride(0),
        SINGLES_TOO=singles_too,
        ROWS=rows,
        TILE=tile.keys,
        **constants,
        num_warps=tile.num_warps,
        num_stages=tile.num_stages,
    )


def chunk_tile(heads: int, latent: int, rotated: int, q_THC: torch.Tensor) -> LatentTile:
    """The same for every chunk. heads: that share a program."""
    fewest_rows = max(16, triton.next_power_of_2(heads))
    itemsize = q_THC.element_size()
    wanted = LatentTile(rows=64, keys=64, num_warps=8, num_stages=2)
    if itemsize > 2:  # exact products, without matrix units
        wanted = LatentTile(rows=64, keys=16, num_warps=8, num_stages=1)
    return fitting(wanted, row_bytes(latent, rotated, itemsize), q_THC.device, fewest_rows=fewest_rows)


@triton.jit
def _latent_chunks_kernel(  # noqa: PLR0913
    q,
    q_rotated,
    pages,
    table,
    rows,
    starts,
    lengths,
    counts,
    out,
    q_stride,
    rotated_stride,
    table_stride,
    out_stride,
    SINGLES_TOO: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    G: tl.constexpr,
    LATENT: tl.constexpr,
    ROTATED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_STRIDE: tl.constexpr,
    TOKEN_STRIDE: tl.constexpr,
    ROTATED_HEAD_STRIDE: tl.constexpr,
    SCALE: tl.constexpr,
):
    BLOCK_Q: tl.constexpr = ROWS // G

    # Which tokens of which sequence, the last blocks first: as in paged_chunks.
    num_sequences = tl.load(counts + 1)
    first = tl.where(SINGLES_TOO, 0, tl.load(counts))
    if first >= num_sequences:
        return
    block = first_block(starts, num_sequences, BLOCK_Q) - 1 - tl.program_id(0)
    if block < first_block(starts, first, BLOCK_Q):
        return
    sequence = find_sequence(starts, block, first, num_sequences, BLOCK_Q)
    start = tl.load(starts + sequence)
    num_queries = tl.load(starts + sequence + 1) - start
    token = (block - start // BLOCK_Q - sequence) * BLOCK_Q
    if token >= num_queries:
        return
    num_tokens = tl.minimum(num_queries - token, BLOCK_Q)
    position = tl.load(lengths + sequence) - num_queries + token

    # Rows past the last token stand where it stands, so that no row sees nothing.
    row_M = tl.arange(0, ROWS)
    token_M = row_M // G
    head_M = tl.program_id(1) * G + row_M % G
    is_token_M = token_M < num_tokens
    place_M = (start + token + token_M).to(tl.int64)
    q_MC, q_MR = load_queries(
        q,
        q_rotated,
        place_M * q_stride + head_M * LATENT,
        place_M * rotated_stride + head_M * ROTATED_HEAD_STRIDE,
        is_token_M,
        LATENT,
        ROTATED,
        BLOCK_C,
        BLOCK_R,
    )
    _, l_M, acc_MC = attend_latents(
        q_MC,
        q_MR,
        pages,
        table + tl.load(rows + sequence).to(tl.int64) * table_stride,
        position + tl.minimum(token_M, num_tokens - 1),
        0,
        position + num_tokens,
        TILE,
        LATENT,
        ROTATED,
        BLOCK_SIZE,
        BLOCK_STRIDE,
        TOKEN_STRIDE,
        SCALE,
    )
    c_C = tl.arange(0, BLOCK_C)
    out_MC = (acc_MC / l_M[:, None]).to(out.dtype.element_ty)
    out_ptrs_MC = out + (place_M * out_stride + head_M * LATENT)[:, None] + c_C[None, :]
    tl.store(out_ptrs_MC, out_MC, mask=is_token_M[:, None] & (c_C < LATENT)[None, :])
