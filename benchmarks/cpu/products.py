"""Products of packed weights by themselves: every matrix of the default model once, so none is cached.

    python benchmarks/cpu/products.py [--threads 2] [--kernels avx2]

Times are the best of five; GB/s are of packed weights, G/s multiplications.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from octavo.base.native import physical_cores
from octavo.ops.cpu.engine import NativeEngine, PackedMatrix
from octavo.ops.stored import StoredMatrix

LAYERS = 30
SHAPES = ((960, 576), (576, 576), (3072, 576), (576, 1536))
"""Outputs and inputs of a layer's products."""
HEAD = (49152, 576)
BLOCK_BYTES = {"Q4_1": 20, "Q8_0": 34}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--kernels", help="an instruction set instead of the fastest")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 128, 512])
    options = parser.parse_args()
    native = NativeEngine(options.threads, options.kernels)
    layers = [matrix(native, "Q4_1", *shape) for _ in range(LAYERS) for shape in SHAPES]
    head = matrix(native, "Q8_0", *HEAD)
    print(f"{native.kernels}, {native.num_threads} threads")
    for num_tokens in options.tokens:
        # Every row of a step goes through the layers, and at most a few dozen through the head.
        print(f"{num_tokens:4} tokens: layers {line(native, layers, num_tokens)}", end="; ")
        print(f"head {line(native, [head], min(num_tokens, 32))}", flush=True)


def matrix(native: NativeEngine, kind: str, rows: int, columns: int) -> PackedMatrix:
    data = np.full((rows, columns // 32 * BLOCK_BYTES[kind]), 17, dtype=np.uint8)
    return native.pack(StoredMatrix(kind=kind, columns=columns, data=data))


def line(native: NativeEngine, matrices: list[PackedMatrix], num_tokens: int) -> str:
    inputs = {columns: torch.randn(num_tokens, columns) for columns in {m.struct.columns for m in matrices}}
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        for packed in matrices:
            native.linear(inputs[packed.struct.columns], [packed], None)
        best = min(best, time.perf_counter() - began)
    num_bytes = sum(packed.packed.nbytes for packed in matrices)
    products = num_tokens * sum(packed.struct.rows * packed.struct.columns for packed in matrices)
    return f"{1e3 * best:7.2f} ms {num_bytes / best / 1e9:5.1f} GB/s {products / best / 1e9:5.0f} G/s"


if __name__ == "__main__":
    main()
