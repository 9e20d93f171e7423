"""Torch tensors over mapped or constant bytes, without a copy. The one place with torch's names of types.

The bytes are read-only: writing to such a tensor crashes the process, as writing to constants does.
torch is imported at the first call, not with this module.
"""

from __future__ import annotations

import mmap
import warnings
from functools import cache
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


def mapped_tensor(data: mmap.mmap, start: int, shape: Shape, dtype_name: str) -> torch.Tensor:
    """Return the tensor that begins at byte `start`; the caller has checked that it lies inside.

    Copies only where the file does not align the tensor to its item size, and for bool, whose bytes
    must be brought to 0 or 1.
    """
    import torch

    _accept_read_only_buffers()
    if dtype_name == "bool":
        return mapped_tensor(data, start, shape, "uint8") != 0
    dtype: torch.dtype = getattr(torch, dtype_name)
    count = prod(shape)
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    if start % dtype.itemsize:
        copied = bytearray(data[start : start + count * dtype.itemsize])
        return torch.frombuffer(copied, dtype=dtype).reshape(shape)
    return torch.frombuffer(data, dtype=dtype, count=count, offset=start).reshape(shape)


def bytes_tensor(data: bytes, shape: Shape, dtype_name: str) -> torch.Tensor:
    """The same of bytes that hold one tensor and nothing else."""
    import torch

    _accept_read_only_buffers()
    return torch.frombuffer(data, dtype=getattr(torch, dtype_name)).reshape(shape)


@cache
def _accept_read_only_buffers() -> None:
    """Use up torch's only warning about read-only buffers: ours are read-only on purpose."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.frombuffer(b"\0", dtype=torch.uint8)
