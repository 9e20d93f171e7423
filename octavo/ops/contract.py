"""Op: what an operation means (plain torch), who computes it faster, and how the two are compared.

A layer asks once, when it is built, for the form that its device runs (`on`); nothing is chosen per call.
An op returns a tensor or several, or writes into some of its arguments (`writes`), or both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar

import torch

from octavo.base.table import LazyTable

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Op(Generic[P, R]):
    """One operation. Every provider is tested against `plain` on `examples` within `tolerance` (float32)."""

    name: str
    plain: Callable[P, R]
    providers: LazyTable[Callable[P, R]]
    """Device type -> the function that is faster there."""
    examples: Callable[[], Iterable[tuple[Any, ...]]]
    """Argument tuples that between them reach every branch. New tensors with the same values at each call."""
    tolerance: float
    writes: tuple[int, ...] = ()
    """Positions of the arguments written in place. All others are left as they were."""
    float32_arguments: tuple[int, ...] = ()
    """Positions of the arguments that stay float32 when a model computes in a narrower type."""

    def on(self, device: torch.device) -> Callable[P, R]:
        """The form to call on `device`."""
        return self.providers.load(device.type) if device.type in self.providers else self.plain
