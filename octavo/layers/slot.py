"""WeightSlot: one tensor of a checkpoint and the place in the model it goes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class WeightSlot:
    """`target` is a view of a parameter in the checkpoint's shape: placing is `target.copy_(tensor)`.

    Where a tensor can be used exactly as it lies in the file, `adopt` takes it instead and nothing is
    copied.
    """

    name: str
    target: torch.Tensor
    adopt: Callable[[torch.Tensor], None] | None = None
    order_R: torch.Tensor | None = None
    """Rows in the model's order: its row i is the checkpoint's row order_R[i]. Not for adopted targets."""
    order_dim: int = 0
    """The dimension that these rows are counted along."""
    offset: float = 0.0
    """What the model adds to the checkpoint's numbers. Not for targets that are adopted."""
    older_name: str | None = None
    """What some checkpoints call the tensor instead; `name` goes first."""
