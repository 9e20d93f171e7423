"""WeightSlot: one tensor of a checkpoint and the place in the model it goes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from octavo.ops.stored import StoredMatrix


class Taken(NamedTuple):
    num_bytes: int
    """That it takes now."""
    is_finite: bool
    """None of its numbers is NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class PackedTarget:
    """Takes a matrix as the file packs it, where the model computes with it in that form."""

    kinds: frozenset[str]
    """Kinds of StoredMatrix that are taken as they are."""
    otherwise: torch.dtype
    """What numbers of all other kinds become."""
    take: Callable[[StoredMatrix], Taken]


@dataclass(frozen=True, kw_only=True)
class WeightSlot:
    """`target` is a view of a parameter in the checkpoint's shape: placing is `target.copy_(tensor)`."""

    name: str
    target: torch.Tensor
    order_R: torch.Tensor | None = None
    """Rows in the model's order: its row i is the checkpoint's row order_R[i]."""
    order_dim: int = 0
    """The dimension that these rows are counted along."""
    packed: PackedTarget | None = None
    """Takes the matrix instead of `target`, which then is only its shape and has no memory."""
    is_turned: bool = False
    """The checkpoint has the matrix as [I, O]. `target` is a view that takes this; packed it is turned."""
    offset: float = 0.0
    """What the model adds to the checkpoint's numbers."""
    older_name: str | None = None
    """What some checkpoints call the tensor instead; `name` goes first."""
