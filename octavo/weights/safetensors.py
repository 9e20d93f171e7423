"""One safetensors file: the header checked strictly, then tensors as views of a read-only map.

Which files make up a checkpoint is told in `safetensors_checkpoint.py`.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octavo.base.errors import ModelFileError
from octavo.base.files import forget_pages, map_file, open_regular, read_exactly
from octavo.weights.strict_json import parse_object
from octavo.weights.views import Shape, mapped_tensor

if TYPE_CHECKING:
    import torch

    from octavo.weights.transfer import Bytes, Piece

MAX_HEADER_BYTES = 64 * 2**20
MAX_TENSORS = 2**17
"""In one file."""
MAX_DIMENSIONS = 8
MAX_NAME_LENGTH = 1024

DTYPES = {
    "F64": (8, "float64"),
    "F32": (4, "float32"),
    "F16": (2, "float16"),
    "BF16": (2, "bfloat16"),
    "F8_E4M3": (1, "float8_e4m3fn"),
    "F8_E5M2": (1, "float8_e5m2"),
    "I64": (8, "int64"),
    "I32": (4, "int32"),
    "I16": (2, "int16"),
    "I8": (1, "int8"),
    "U8": (1, "uint8"),
    "BOOL": (1, "bool"),
}
"""Name in the file -> bytes per item, torch's name."""


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where one tensor lies in its file."""

    dtype: str
    """torch's name of the type."""
    shape: Shape
    start: int
    """Byte in the file."""
    num_bytes: int


class SafetensorsFile:
    """A checked safetensors file. `tensors` maps names to places."""

    # The map is never closed by hand: tensors may outlive this object, and the last one unmaps it.

    def __init__(self, path: Path) -> None:
        """Map and check the whole header. Raises ModelFileError naming file and tensor."""
        self._path = path
        self._data = map_file(path)
        self.tensors = read_header(self._data, path.name)

    def load(self, name: str) -> torch.Tensor:
        """Return a tensor as stored: a read-only view of the map."""
        tensor = self.tensors[name]
        return mapped_tensor(self._data, tensor.start, tensor.shape, tensor.dtype)

    def forget(self, name: str) -> None:
        """The pages of a tensor leave this process; they come back from the file if read again."""
        tensor = self.tensors[name]
        forget_pages(self._data, tensor.start, tensor.num_bytes)

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor for `pieces`: reads are faster than a map where all of a file is wanted, and a file
        that was truncated is an error instead of a crash.
        """
        descriptor = open_regular(self._path)
        try:
            size = os.fstat(descriptor).st_size
            if size != len(self._data):
                raise ModelFileError(
                    f"{self._path.name!r} had {len(self._data)} bytes when it was checked and has {size} "
                    "now. Start again when nobody writes to it."
                )
            yield descriptor
        finally:
            os.close(descriptor)

    def pieces(self, name: str, target: torch.Tensor, descriptor: int) -> Iterator[Piece]:
        """Cut a tensor into reads straight from the file, which must stay open until they are done."""
        import torch

        from octavo.weights.transfer import Piece, cut

        tensor = self.tensors[name]
        # A bool is a byte; read as numbers, any byte is a valid one.
        dtype: torch.dtype = torch.uint8 if tensor.dtype == "bool" else getattr(torch, tensor.dtype)
        for part, first in cut(target, dtype.itemsize):
            start = tensor.start + first * dtype.itemsize
            yield Piece(target=part, dtype=dtype, fill=partial(self.read, descriptor, start))

    def read(self, descriptor: int, start: int, room: Bytes) -> None:
        """Fill `room` with the file's bytes from `start` on."""
        read_exactly(descriptor, room.data, start, self._path.name)


def read_header(data: mmap.mmap | bytes, file: str) -> dict[str, StoredTensor]:
    """Check a whole file but for its numbers. Raises ModelFileError naming `file` and tensor."""
    size = len(data)
    if size < 8:
        raise ModelFileError(f"{file!r} has {size} bytes; a safetensors file has at least 8. Fetch it again.")
    length = struct.unpack_from("<Q", data)[0]
    if length > size - 8:
        raise ModelFileError(
            f"{file!r} claims a header of {length} bytes, but {size - 8} bytes follow. "
            "It is truncated, or not a safetensors file; fetch it again."
        )
    if length > MAX_HEADER_BYTES:
        raise ModelFileError(f"{file!r} has a header of {length} bytes; at most {MAX_HEADER_BYTES} are read.")
    raw = data[8 : 8 + length]
    if raw[:1] != b"{":
        raise ModelFileError(f"The header of {file!r} is not a JSON object: it is not a safetensors file.")
    # Counted before parsing, which would take seconds and gigabytes for millions of tensors.
    count = raw.count(b"data_offsets")
    if count > MAX_TENSORS:
        raise ModelFileError(f"{file!r} has {count} tensors; at most {MAX_TENSORS} are read.")
    header = parse_object(raw, f"The header of {file!r}", unique_keys=True)
    _check_metadata(header.pop("__metadata__", {}), file)
    tensors = {name: _read_tensor(name, entry, file, 8 + length) for name, entry in header.items()}
    _check_layout(tensors, 8 + length, size, file)
    return tensors


def _check_metadata(metadata: object, file: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFileError(f"The header of {file!r} has a '__metadata__' that is not an object of strings.")


def _read_tensor(name: str, entry: Any, file: str, data_start: int) -> StoredTensor:
    if not name.isprintable() or not 0 < len(name) <= MAX_NAME_LENGTH or name.startswith("__"):
        raise ModelFileError(f"{file!r} has a tensor with the impossible name {name[:80]!r}.")
    what = f"The tensor {name!r} in {file!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(f"{what} must have exactly dtype, shape and data_offsets.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ModelFileError(f"{what} has the type {str(dtype)[:40]!r}; known are {', '.join(DTYPES)}.")
    if not _is_count_list(shape) or len(shape) > MAX_DIMENSIONS:
        raise ModelFileError(f"{what} has a shape that is not a list of at most {MAX_DIMENSIONS} counts.")
    if not _is_count_list(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelFileError(f"{what} has data_offsets that are not a begin and an end.")
    item_bytes, torch_name = DTYPES[dtype]
    begin, end = offsets
    if prod(shape) * item_bytes != end - begin:
        raise ModelFileError(
            f"{what} has {end - begin} bytes, but its shape {shape} of {dtype} needs "
            f"{prod(shape) * item_bytes}."
        )
    return StoredTensor(dtype=torch_name, shape=tuple(shape), start=data_start + begin, num_bytes=end - begin)


def _is_count_list(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_layout(tensors: dict[str, StoredTensor], data_start: int, size: int, file: str) -> None:
    """The tensors must fill the rest of the file without gap or overlap."""
    position = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].num_bytes)):
        if tensor.start != position:
            fault = "overlaps the tensor before it" if tensor.start < position else "leaves a gap before it"
            raise ModelFileError(f"The tensor {name!r} in {file!r} {fault}.")
        position += tensor.num_bytes
        if position > size:
            raise ModelFileError(
                f"The tensor {name!r} in {file!r} ends at byte {position}, but the file at {size}. "
                "It is truncated; fetch it again."
            )
    if position != size:
        raise ModelFileError(
            f"{file!r} has {size - position} bytes that belong to no tensor. Fetch it again."
        )
