"""What recurrent layers see of a step: whose tokens it computes, and what those rows remember."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from octavo.ops.step_rows import StepRows


@dataclass(frozen=True, kw_only=True)
class RecurrentStep:
    rows: StepRows
    states: Sequence[Sequence[torch.Tensor]]
    """By recurrent layer: the tensors of its StateSpec, [R, *shape] for R rows of the worker. Ops write to
    them. A sequence's first token starts from zero, so a row that changes hands needs no clearing.
    """
