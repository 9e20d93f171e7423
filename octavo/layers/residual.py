"""Residual: the stream that runs through a decoder's layers. T tokens, E width."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Residual(NamedTuple):
    """x plus what the last layer adds to it, not yet added: the next norm does both in one pass.

    delta None: everything is in x already.
    """

    x_TE: torch.Tensor
    delta_TE: torch.Tensor | None = None

    def total(self) -> torch.Tensor:
        """[T, E], with everything added."""
        return self.x_TE if self.delta_TE is None else self.x_TE + self.delta_TE
