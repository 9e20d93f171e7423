"""GGUFFile: a GGUF v2 or v3 file over a read-only map. Checks everything before anything is used.

Tensors are only views of the map. What the metadata means is told in `config.py`, not here.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from octavo.base.errors import ModelFileError
from octavo.base.files import forget_pages, map_file
from octavo.base.integers import round_up
from octavo.weights.gguf.bits import Bytes
from octavo.weights.gguf.cursor import Cursor
from octavo.weights.gguf.dequant import BLOCK_TYPES, OTHER_TYPES, BlockType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 2**16
MAX_TENSORS = 2**19
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 2**16
DEFAULT_ALIGNMENT = 32
_LEAST_KEY_BYTES = 8 + 1 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8


@dataclass(frozen=True, kw_only=True)
class GGUFTensor:
    """Where one tensor lies in the file."""

    name: str
    shape: tuple[int, ...]
    """Slowest dimension first, as in torch (the file stores it the other way round)."""
    kind: BlockType
    start: int
    """Byte in the file."""
    num_bytes: int


class GGUFFile:
    """A checked GGUF file. `metadata` maps keys to plain Python values, `tensors` names to places."""

    # The map is never closed by hand: views may outlive this object, and the last one unmaps it.

    def __init__(self, path: Path) -> None:
        """Map and check the whole header. Raises ModelFileError naming the key or tensor at fault."""
        self._data = map_file(path)
        cursor = Cursor(self._data)
        num_tensors, num_keys = _read_counts(cursor)
        self.metadata: dict[str, Any] = _read_metadata(cursor, num_keys)
        self.tensors: dict[str, GGUFTensor] = _read_tensors(cursor, num_tensors, _alignment(self.metadata))

    def map_of(self, name: str) -> mmap.mmap:  # noqa: ARG002
        """The map of the whole file that a tensor lies in."""
        return self._data

    def packed(self, name: str) -> Bytes:
        """Return the bytes of a tensor as a read-only view [rows, bytes per row]."""
        tensor, data = self.tensors[name], self.map_of(name)
        flat: Bytes = np.frombuffer(data, dtype=np.uint8, count=tensor.num_bytes, offset=tensor.start)
        row_bytes = tensor.shape[-1] // tensor.kind.block_size * tensor.kind.block_bytes
        return flat.reshape(-1, row_bytes)

    def forget(self, name: str) -> None:
        """The pages of a tensor leave this process; they come back from the file if read again."""
        tensor = self.tensors[name]
        forget_pages(self.map_of(name), tensor.start, tensor.num_bytes)


def _read_counts(cursor: Cursor) -> tuple[int, int]:
    cursor.need(24, "the header")
    if cursor.data[:4] != MAGIC:
        raise ModelFileError("This is not a GGUF file: it does not begin with 'GGUF'.")
    cursor.position = 4
    version = cursor.u32("the version")
    if version and version % 2**16 == 0:
        raise ModelFileError("This GGUF file is big-endian; only little-endian files are read. Convert it.")
    if version not in VERSIONS:
        raise ModelFileError(
            f"GGUF version {version} is not read; versions 2 and 3 are. Convert the model anew."
        )
    num_tensors, num_keys = cursor.u64("the number of tensors"), cursor.u64("the number of keys")
    for what, count, limit, least in (
        ("tensors", num_tensors, MAX_TENSORS, _LEAST_TENSOR_BYTES),
        ("metadata keys", num_keys, MAX_KEYS, _LEAST_KEY_BYTES),
    ):
        if count > limit:
            raise ModelFileError(f"The GGUF file claims {count} {what}; at most {limit} are read.")
        cursor.need(count * least, f"the {what}")
    return num_tensors, num_keys


def _read_metadata(cursor: Cursor, num_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(num_keys):
        key = cursor.name(f"metadata key {index}")
        if key in metadata:
            raise ModelFileError(f"The GGUF file has the metadata key {key!r} twice.")
        metadata[key] = cursor.value(cursor.u32(f"key {key!r}"), f"key {key!r}")
    return metadata


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ModelFileError(
            f"general.alignment is {str(alignment)[:40]}; "
            f"powers of two from 8 to {MAX_ALIGNMENT} are allowed."
        )
    return alignment


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> dict[str, GGUFTensor]:
    found: list[tuple[str, tuple[int, ...], BlockType, int]] = []
    for index in range(count):
        name = cursor.name(f"the name of tensor {index}")
        what = f"tensor {name!r}"
        num_dimensions = cursor.u32(what)
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise ModelFileError(
                f"GGUF {what} has {num_dimensions} dimensions; 1 to {MAX_DIMENSIONS} are possible."
            )
        shape = tuple(cursor.u64(what) for _ in range(num_dimensions))[::-1]
        kind = _block_type(cursor.u32(what), what)
        found.append((name, shape, kind, cursor.u64(what)))
    data_start = round_up(cursor.position, alignment)
    tensors: dict[str, GGUFTensor] = {}
    for name, shape, kind, offset in found:
        if name in tensors:
            raise ModelFileError(f"The GGUF file has the tensor {name!r} twice.")
        num_bytes = _tensor_bytes(name, shape, kind)
        start = data_start + offset
        if offset % alignment:
            raise ModelFileError(
                f"GGUF tensor {name!r} is at offset {offset}, not a multiple of {alignment}."
            )
        if start + num_bytes > cursor.size:
            raise ModelFileError(
                f"GGUF tensor {name!r} ends at byte {start + num_bytes}, the file at {cursor.size}. "
                "The file is truncated or broken; fetch it again."
            )
        tensors[name] = GGUFTensor(name=name, shape=shape, kind=kind, start=start, num_bytes=num_bytes)
    _check_layout(tensors, data_start, cursor.size, alignment)
    return tensors


def _block_type(type_id: int, what: str) -> BlockType:
    kind = BLOCK_TYPES.get(type_id)
    if kind is None:
        known = ", ".join(kind.name for kind in BLOCK_TYPES.values())
        raise ModelFileError(
            f"GGUF {what} has the type {OTHER_TYPES.get(type_id, type_id)}, which is not supported. "
            f"Supported are: {known}."
        )
    return kind


def _tensor_bytes(name: str, shape: tuple[int, ...], kind: BlockType) -> int:
    if any(not 0 < size < 2**63 for size in shape):
        raise ModelFileError(
            f"GGUF tensor {name!r} has the shape {shape}; every dimension must be at least 1."
        )
    if shape[-1] % kind.block_size:
        raise ModelFileError(
            f"GGUF tensor {name!r} has rows of {shape[-1]}, not a multiple of the {kind.block_size} weights "
            f"in a {kind.name} block."
        )
    return prod(shape) // kind.block_size * kind.block_bytes


def _check_layout(tensors: dict[str, GGUFTensor], start: int, size: int, alignment: int) -> None:
    """They fill the file from `start` on, with nothing but padding between, as every writer has them.

    A type or shape that was damaged into another one shows here.
    """
    end, before = start, "the header"
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.start):
        if tensor.start < end:
            raise ModelFileError(f"GGUF tensors {before} and {tensor.name!r} overlap.")
        _check_gap(end, tensor.start, alignment, before)
        end, before = tensor.start + tensor.num_bytes, f"tensor {tensor.name!r}"
    _check_gap(end, size, alignment, before)


def _check_gap(end: int, start: int, alignment: int, before: str) -> None:
    if start - end >= alignment:
        raise ModelFileError(
            f"The GGUF file has {start - end} bytes behind {before} that belong to nothing. It is broken; "
            "fetch it again."
        )
