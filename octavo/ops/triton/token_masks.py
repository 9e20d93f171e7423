"""mask_tokens on a GPU: one launch that reads bits and writes minus infinity where one is missing.

Limits on an H100 for 32 rows of 128256 tokens, all but a few forbidden: 16 MB written in 6 us.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

TILE = 4096
NUM_WARPS = 4


def mask_tokens(logits_SV: Tensor, allowed_MW: Tensor, places_M: Tensor | None) -> None:
    """As octavo/ops/sampling/token_masks.py defines it."""
    vocab_size = logits_SV.shape[1]
    assert logits_SV.stride(1) == 1 and allowed_MW.stride(1) == 1, "a row lies in one piece"
    _mask_kernel[(len(allowed_MW), triton.cdiv(vocab_size, TILE))](
        logits_SV,
        logits_SV.stride(0),
        allowed_MW,
        allowed_MW.stride(0),
        places_M,
        VOCAB=vocab_size,
        TILE_WIDTH=TILE,
        num_warps=NUM_WARPS,
    )


@triton.jit
def _mask_kernel(
    logits_ptr,
    logits_stride,
    allowed_ptr,
    allowed_stride,
    places_ptr,
    VOCAB: tl.constexpr,
    TILE_WIDTH: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64)
    row = index
    if places_ptr is not None:
        row = tl.load(places_ptr + index)
    tokens = tl.program_id(1) * TILE_WIDTH + tl.arange(0, TILE_WIDTH)
    inside = tokens < VOCAB
    words = tl.load(allowed_ptr + index * allowed_stride + tokens // 32, mask=inside, other=-1)
    is_masked = ((words >> (tokens % 32)) & 1) == 0
    never = tl.full([TILE_WIDTH], float("-inf"), tl.float32)
    tl.store(logits_ptr + row * logits_stride + tokens, never, mask=inside & is_masked)
