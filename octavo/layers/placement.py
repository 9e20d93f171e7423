"""Placement: in which numbers, where and for how long texts a model is built. Every layer takes it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.ops.cpu.engine import PLAIN_KINDS, TYPES, NativeEngine


@dataclass(frozen=True, kw_only=True)
class Placement:
    dtype: torch.dtype
    """Of what is computed, and of the weights where nothing else is said."""
    device: torch.device
    max_positions: int
    """Tokens of the longest text."""
    deterministic: bool = False
    """A token's numbers must not depend on the others in its step: fixed tiles, fixed order of addition."""
    only_reads: bool = False
    """The model is pooled and never writes: its steps have many tokens."""

    native: NativeEngine | None = None
    """Compiled kernels that compute in float32 on a CPU."""
    weight_dtype: torch.dtype = torch.float32
    """Of the matrices that these kernels multiply with, unless packed."""
    keeps_packed: bool = False
    """These kernels multiply with matrices as files pack them, inputs rounded to 8 bits."""

    @property
    def native_kinds(self) -> frozenset[str]:
        """Kinds of stored matrices that native kernels compute with as they are.

        In float32 that is all plain ones: narrow numbers become it exactly, one by one.
        """
        if self.keeps_packed:
            return frozenset(TYPES)
        if self.weight_dtype == torch.float32:
            return frozenset(PLAIN_KINDS.values())
        return frozenset({PLAIN_KINDS[self.weight_dtype]})

    def empty(self, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=self.dtype, device=self.device)
