"""StoredMatrix: a matrix as its file packs it, for whoever multiplies with it in that form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class StoredMatrix:
    """`data` is a view of the file, one line for each row of the matrix."""

    kind: str
    """How a row is packed: GGUF's name of the type, such as Q4_1; plain numbers are F32, F16 and BF16."""
    columns: int
    """Numbers in a row."""
    data: npt.NDArray[np.uint8]
    """[rows, bytes of a row]"""
    release: Callable[[], None] = lambda: None
    """Called when the bytes are not needed any more: their pages need not stay in memory."""

    @property
    def rows(self) -> int:
        return len(self.data)

    def reordered(self, order: npt.NDArray[np.int64]) -> StoredMatrix:
        """Its row i is this one's row order[i]: whole rows move, so packed rows can."""
        return replace(self, data=self.data[order])
