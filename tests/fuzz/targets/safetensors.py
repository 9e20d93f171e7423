"""Safetensors files: the header, and every tensor that it claims."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch

from octavo.base.errors import ModelFileError
from octavo.weights.safetensors import DTYPES, SafetensorsFile
from tests.fuzz.mutate import bytes_mutator, json_mutator
from tests.fuzz.target import Run, Target
from tests.weights.crafted import safetensors_bytes

_HEADER = json_mutator(["dtype", "shape", "data_offsets", "__metadata__", "weight", *DTYPES, "F4", "format"])
_BYTES = bytes_mutator([b'"shape":[', b'"data_offsets":[0,', b'"dtype":"F32"'], hot_bytes=300)


def opened(folder: Path) -> Run:
    torch.set_num_threads(1)
    path = folder / "model.safetensors"

    def run(data: bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            file = SafetensorsFile(path)
        except ModelFileError:
            return
        for name, place in file.tensors.items():
            tensor = file.load(name)
            assert tuple(tensor.shape) == tuple(place.shape)
            assert tensor.numel() == 0 or bool(
                (tensor == tensor).any() | True
            )  # read it: the map is long enough
            target = torch.empty(place.shape, dtype=torch.float32)
            if target.dim() and 0 < target.numel() < 1 << 16:
                with file.opened() as descriptor:
                    assert list(file.pieces(name, target, descriptor))

    return run


def mutate(data: bytes, rng: Random) -> bytes:
    """Mostly the header as JSON, with its length put right."""
    if rng.random() < 0.3 or len(data) < 8:
        return _BYTES(data, rng)
    length = struct.unpack_from("<Q", data)[0]
    if length > len(data) - 8:
        return _BYTES(data, rng)
    header = _HEADER(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def seeds() -> Iterator[bytes]:
    for dtype, (size, _) in DTYPES.items():
        header = {"a": {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, 6 * size]}}
        yield safetensors_bytes(header, bytes(range(6 * size)))
    two = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [8, 16]},
        "c": {"dtype": "U8", "shape": [0, 4], "data_offsets": [16, 16]},
    }
    yield safetensors_bytes(two, bytes(16))


TARGET = Target(open=opened, seeds=seeds, mutate=mutate, max_bytes=8 * 1024)
