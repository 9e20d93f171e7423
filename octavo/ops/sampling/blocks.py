"""Largest entries of long rows, found in two stages: the maximum of each block, then the best blocks.

Reading a row once for its block maxima is several times cheaper than torch.argmax or torch.topk over
the whole row. Ties go to the lower index everywhere, so results never depend on k or on other rows.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 32


def as_blocks(x_RV: Tensor) -> Tensor:
    """Rows of whole blocks as [R, blocks, BLOCK], without a copy."""
    return x_RV.view(x_RV.shape[0], x_RV.shape[1] // BLOCK, BLOCK)


def pad_to_blocks(x_RV: Tensor, value: float) -> Tensor:
    """Rows filled up to whole blocks; no copy when they already are."""
    missing = -x_RV.shape[-1] % BLOCK
    return functional.pad(x_RV, (0, missing), value=value) if missing else x_RV


def best_token(x_SV: Tensor) -> tuple[Tensor, Tensor]:
    """Largest value of each row (float32 [S]) and its lowest index (int64 [S]).

    The value tells whether a row is usable: NaN if the row holds any, inf if it holds any, -inf if
    there is nothing else.
    """
    blocks_SNB = as_blocks(pad_to_blocks(x_SV, float("-inf")))
    block_S1 = blocks_SNB.amax(-1).argmax(-1, keepdim=True)
    inner_SB = blocks_SNB.gather(1, block_S1.unsqueeze(-1).expand(-1, 1, BLOCK)).squeeze(1)
    offset_S1 = inner_SB.argmax(-1, keepdim=True)
    value_S = inner_SB.gather(1, offset_S1).squeeze(1).float()
    # A block of padding only wins where a row is all -inf; then any index will do.
    index_S = (block_S1 * BLOCK + offset_S1).squeeze(1).clamp(max=x_SV.shape[-1] - 1)
    return value_S, index_S


def best_tokens(x_RV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each float32 row, best first, and their indices; ties by index.

    An index among the best k lies in one of the k best blocks (by maximum, then position): each of
    those holds an entry that comes before everything in a block left out.
    """
    k = min(k, x_RV.shape[-1])
    blocks_RNB = as_blocks(pad_to_blocks(x_RV, float("-inf")))
    num_blocks = blocks_RNB.shape[1]
    if k * 2 > num_blocks:
        values_RV, indices_RV = torch.sort(x_RV, dim=-1, descending=True, stable=True)
        return values_RV[:, :k], indices_RV[:, :k]
    chosen_RK = _ranked(blocks_RNB.amax(-1), None, k)
    inner_RKB = blocks_RNB.gather(1, chosen_RK.unsqueeze(-1).expand(-1, -1, BLOCK))
    offsets_B = torch.arange(BLOCK, device=x_RV.device)
    indices_RC = (chosen_RK.unsqueeze(-1) * BLOCK + offsets_B).flatten(1)
    order_RK = _ranked(inner_RKB.flatten(1), indices_RC, k)
    # A NaN may come behind the padding: then any index will do, but it has to be one.
    indices_RK = indices_RC.gather(1, order_RK).clamp_(max=x_RV.shape[-1] - 1)
    return x_RV.gather(1, indices_RK), indices_RK


def _ranked(x_RC: Tensor, ids_RC: Tensor | None, k: int) -> Tensor:
    """Positions of the k largest, best first, ties by id. One integer holds both: value high, id low."""
    if ids_RC is None:
        ids_RC = torch.arange(x_RC.shape[-1], device=x_RC.device)
    bits_RC = (x_RC + 0.0).view(torch.int32).to(torch.int64)  # + 0.0 turns -0.0 into 0.0
    ordered_RC = bits_RC ^ ((bits_RC >> 31) & 0x7FFFFFFF)
    return (ordered_RC * 2**32 - ids_RC).topk(k, dim=-1).indices
