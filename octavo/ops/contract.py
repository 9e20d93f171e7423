"""Op: what an operation means (plain torch), who computes it faster, and how the two are compared.

A layer asks once, when it is built, for the form that its device runs (`on`); nothing is chosen per call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec

import torch

from octavo.base.table import LazyTable

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Op(Generic[P]):
    """One operation. Every provider is tested against `plain` on `examples` within `tolerance` (float32)."""

    name: str
    plain: Callable[P, torch.Tensor]
    providers: LazyTable[Callable[P, torch.Tensor]]
    """Device type -> the function that is faster there."""
    examples: Callable[[], Iterable[tuple[Any, ...]]]
    """Argument tuples that between them reach every branch."""
    tolerance: float

    def on(self, device: torch.device) -> Callable[P, torch.Tensor]:
        """The form to call on `device`."""
        return self.providers.load(device.type) if device.type in self.providers else self.plain
