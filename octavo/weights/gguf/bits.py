"""Unpacking small integers from bytes, for whole arrays of blocks at once.

Shape letters: B blocks, X bytes of a block, W weights per block.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

NONLINEAR_4BIT = np.array(
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], dtype=np.float32
)
"""The sixteen levels of the IQ4 types."""
FP4_DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=np.float32)
"""Twice the levels of MXFP4. The file format has no negative zero."""


def half(blocks_BX: Bytes, at: int) -> Floats:
    """Return the float16 at byte `at` of every block as float32 [B, 1]."""
    return np.ascontiguousarray(blocks_BX[:, at : at + 2]).view(np.float16).astype(np.float32)


def fields(packed_BX: Bytes, bits: int, group: int) -> Bytes:
    """Split bytes into `bits`-wide fields -> [B, W].

    Bytes come in groups of `group`; the weights of a group are the lowest field of all its bytes, then
    the next field of all its bytes, and so on.
    """
    num_blocks, num_bytes = packed_BX.shape
    per_byte = 8 // bits
    packed = np.ascontiguousarray(packed_BX).reshape(num_blocks, num_bytes // group, group)
    out = np.empty((num_blocks, num_bytes // group, per_byte, group), dtype=np.uint8)
    mask = np.uint8((1 << bits) - 1)
    for index in range(per_byte):
        shifted = packed if index == 0 else packed >> np.uint8(index * bits)
        # The highest field has nothing above it to mask off.
        out[:, :, index] = shifted if index == per_byte - 1 else shifted & mask
    return out.reshape(num_blocks, num_bytes * per_byte)


def scale_groups(out_BW: Floats, scale_BG: Floats, low_BG: Floats | None = None) -> None:
    """Multiply each group of weights by its scale, in place, and subtract its minimum if there is one."""
    grouped = out_BW.reshape(*scale_BG.shape, -1)
    grouped *= scale_BG[:, :, None]
    if low_BG is not None:
        grouped -= low_BG[:, :, None]
