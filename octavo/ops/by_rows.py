"""Elementwise functions whose results do not depend on where in memory a number lies.

torch on a CPU computes a whole vector's numbers with one kind of instructions, and the few that are left at
the end of a tensor with another, whose last bits may differ: so a row of odd width would depend on how many
follow it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import pad

from octavo.base.integers import round_up

WHOLE = 32
"""Numbers that no instruction set's vectors, twice unrolled, leave a rest of (float32)."""


def by_rows(function: Callable[[torch.Tensor], torch.Tensor], x_TI: torch.Tensor) -> torch.Tensor:
    """function(x), rows padded where their width is odd; only elementwise functions."""
    width = x_TI.shape[-1]
    if x_TI.device.type != "cpu" or width % WHOLE == 0:
        return function(x_TI)
    return function(pad(x_TI, (0, round_up(width, WHOLE) - width)))[..., :width]
