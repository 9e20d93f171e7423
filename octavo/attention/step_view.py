"""StepView: all that an attention backend gets to know about a step. T tokens, S sequences, N blocks.

Lists live on the host, tensors on the device; nothing has to be read back from the device to plan.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class StepView:
    """One step for the layers of one KV group. No field is optional.

    Sequences that compute a single token come first, shortest first, so that backends can serve runs
    of them together; longer chunks follow.
    """

    query_starts: list[int]
    """S + 1 offsets into the step's tokens."""
    sequence_lengths: list[int]
    """Tokens of each sequence, this step's included."""
    positions_T: torch.Tensor
    slots_T: torch.Tensor
    """Where each token's key and value go: block * block_size + offset."""
    block_tables_SN: torch.Tensor
    """Entries past a sequence's end, or before its window, are not valid."""
