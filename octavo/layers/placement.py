"""Placement: in which numbers, where and for how long texts a model is built. Every layer takes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.ops.cpu.engine import NativeEngine


@dataclass(frozen=True, kw_only=True)
class Placement:
    dtype: torch.dtype
    device: torch.device
    max_positions: int
    """Tokens of the longest text."""
    deterministic: bool = False
    """A token's numbers must not depend on the others in its step: fixed tiles, fixed order of addition."""
    only_reads: bool = False
    """The model is pooled and never writes: its steps have many tokens."""

    native: NativeEngine | None = None
    """Compiled kernels that multiply with weights as files pack them; None: weights are plain numbers."""

    def empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)
