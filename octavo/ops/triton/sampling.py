"""choose_tokens on a GPU: a scan over chunks of all rows, then one program per row that picks.

Nothing is waited for. S rows, V vocabulary.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from octavo.base.integers import ceil_div
from octavo.ops.sampling.blocks import BLOCK
from octavo.ops.sampling.filters import CANDIDATE_BLOCKS
from octavo.ops.sampling.settings import Draws
from octavo.ops.triton.pdl import pdl_options
from octavo.ops.triton.sampling_pick import pick_kernel
from octavo.ops.triton.sampling_scan import scan_kernel

CHUNK = 4096
"""Tokens that a program of the scan looks at. Random draws depend on it in the last bit."""
SCAN_WARPS = 4
PICK_WARPS = 8
"""Where rows draw; for the largest logit alone one warp does."""
PICK_REGISTERS = 128
"""Of a thread, where rows have filters: so that two programs share a multiprocessor."""


def choose_tokens(logits_SV: Tensor, draws: Draws | None) -> Tensor:
    """int32 [2, S]: tokens and codes, as octavo/ops/sampling/choose.py defines them."""
    num_rows, vocab_size = logits_SV.shape
    assert logits_SV.stride(1) == 1, "a row's logits lie side by side"
    device = logits_SV.device
    num_chunks = ceil_div(vocab_size, CHUNK)
    chosen_2S = torch.empty(2, num_rows, dtype=torch.int32, device=device)
    best_SC = torch.empty(num_rows, num_chunks, dtype=torch.int64, device=device)
    sums_SC = maxima_SB = candidates_SN = settings = rows_S = positions_S = None
    if draws is not None:
        settings, rows_S, positions_S = draws.settings, draws.rows_S, draws.positions_S
        sums_SC = torch.empty_like(best_SC)
        if draws.filtered:
            maxima_SB = torch.empty(num_rows, num_chunks * CHUNK // BLOCK, device=device)
            candidates_SN = torch.empty(num_rows, CANDIDATE_BLOCKS, dtype=torch.int32, device=device)
    sizes = {"VOCAB": vocab_size, "CHUNK": CHUNK, "NUM_CHUNKS": num_chunks, "BLOCK": BLOCK}
    options: dict[str, int | bool] = dict(pdl_options(device))
    scan_kernel[(num_rows * num_chunks,)](
        logits_SV,
        logits_SV.stride(0),
        best_SC,
        sums_SC,
        maxima_SB,
        settings,
        rows_S,
        **sizes,
        num_warps=SCAN_WARPS,
        **options,
    )
    if maxima_SB is not None and torch.version.cuda is not None:
        options["maxnreg"] = PICK_REGISTERS
    pick_kernel[(num_rows,)](
        logits_SV,
        logits_SV.stride(0),
        best_SC,
        sums_SC,
        maxima_SB,
        candidates_SN,
        settings,
        rows_S,
        positions_S,
        chosen_2S[0],
        chosen_2S[1],
        **sizes,
        NUM_CANDIDATES=CANDIDATE_BLOCKS,
        PADDED_CHUNKS=triton.next_power_of_2(num_chunks),
        PADDED_BLOCKS=triton.next_power_of_2(num_chunks * CHUNK // BLOCK),
        num_warps=1 if draws is None else PICK_WARPS,
        **options,
    )
    return chosen_2S
