"""Drawing an index from weights by inverting their cumulative sum, in exact arithmetic.

Probabilities become whole multiples of 2**-40, which float32 holds exactly, and float64 adds them up
exactly. So the order of addition cannot matter: a row gives the same index alone or in a batch,
summed at once or in blocks, over all tokens or only over those that a filter kept, on any number of
threads and on any device that is given the same probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from octavo.ops.sampling.blocks import BLOCK, as_blocks

ONE = 2.0**40
"""Weight of probability 1. A token below 2**-41 gets weight 0 and is never drawn."""


def exact_weights(probability: Tensor) -> Tensor:
    """float32 probabilities -> whole numbers in float32 (scaling by a power of two is exact)."""
    return (probability * ONE).round_()


def mass(weights_RC: Tensor) -> Tensor:
    """Exact sum of each row, float64."""
    return weights_RC.sum(-1, dtype=torch.float64)


def draw(weights_RC: Tensor, uniform_R: Tensor) -> Tensor:
    """Index (int64 [R]) that each uniform number falls on; C is a multiple of BLOCK, no row is all zero."""
    blocks_RNB = as_blocks(weights_RC)
    block_ends_RN = mass(blocks_RNB).cumsum(-1)
    total_R1 = block_ends_RN[:, -1:]
    # Below the total: a uniform number is at most 1 - 2**-53, and that share of a float64 rounds down.
    target_R1 = (uniform_R.unsqueeze(1) * total_R1).floor_()
    block_R1 = (block_ends_RN <= target_R1).sum(-1, keepdim=True)
    inner_RB = blocks_RNB.gather(1, block_R1.unsqueeze(-1).expand(-1, 1, BLOCK)).squeeze(1)
    inner_ends_RB = inner_RB.double().cumsum(-1)
    before_R1 = block_ends_RN.gather(1, block_R1) - inner_ends_RB[:, -1:]
    offset_R1 = (inner_ends_RB <= target_R1 - before_R1).sum(-1, keepdim=True)
    index_R1: Tensor = block_R1 * BLOCK + offset_R1
    return index_R1.squeeze(1)
