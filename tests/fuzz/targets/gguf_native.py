"""Packed matrices of GGUF files through the native library: packed, multiplied, looked up.

What the file says is followed into C++, where a wrong size is not an exception.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import octavo.base.native
from octavo.base.errors import ModelFileError
from octavo.ops.cpu.engine import TYPES, NativeEngine
from octavo.ops.stored import StoredMatrix
from octavo.weights.gguf.dequant import dequantize
from octavo.weights.gguf.reader import GGUFFile, GGUFTensor
from tests.fuzz import sanitized
from tests.fuzz.gguf_files import WORDS, packed_in
from tests.fuzz.mutate import bytes_mutator
from tests.fuzz.target import Run, Target

MAX_WEIGHTS = 1 << 16


def opened(folder: Path) -> Run:
    if sanitized.VARIABLE in os.environ:
        octavo.base.native.PATH = Path(os.environ[sanitized.VARIABLE])
    assert octavo.base.native.native_library() is not None, "the native library is what is looked at"
    torch.set_num_threads(1)
    path = folder / "model.gguf"
    engines = [NativeEngine(2), NativeEngine(1, "portable")]

    def run(data: bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        try:
            file = GGUFFile(path)
        except ModelFileError:
            return
        for tensor in file.tensors.values():
            is_matrix = len(tensor.shape) == 2 and tensor.shape[0] * tensor.shape[1] <= MAX_WEIGHTS
            if is_matrix and tensor.kind.name in TYPES:
                for engine in engines:
                    _multiply(engine, file, tensor)

    return run


def _multiply(engine: NativeEngine, file: GGUFFile, tensor: GGUFTensor) -> None:
    rows, columns = tensor.shape
    packed = file.packed(tensor.name)
    matrix = engine.pack(StoredMatrix(kind=tensor.kind.name, columns=columns, data=packed))
    plain = np.empty(rows * columns, np.float32)
    dequantize(packed, tensor.kind, plain)
    ids = torch.tensor([0, rows - 1, rows // 2])
    found = engine.rows(matrix, ids).numpy()
    if matrix.is_finite:
        # Scales are kept as halves: of sums of two large numbers little may be left.
        largest = float(np.abs(plain).max()) + 1e-4
        np.testing.assert_allclose(found, plain.reshape(rows, columns)[ids.numpy()], atol=2e-2 * largest)
    for num_tokens in (1, 5):
        result = engine.linear(torch.ones(num_tokens, columns), [matrix], None)
        assert result.shape == (num_tokens, rows)


def seeds() -> Iterator[bytes]:
    for type_id in TYPES.values():
        yield packed_in(type_id)
        yield packed_in(type_id, 1, 256)
    yield packed_in(1, 3, 7)


TARGET = Target(open=opened, seeds=seeds, mutate=bytes_mutator(WORDS, hot_bytes=400))
