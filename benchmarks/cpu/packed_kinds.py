"""CPU time of products by the kind of packed weights, one thread, for machines that others use as well.

    python benchmarks/cpu/packed_kinds.py [--kernels avx2] [--out results.json]

Sixty matrices of 1024 by 1536 of each kind, so that few are cached; kinds take turns, and the best of them
counts. Milliseconds for 100 million weights.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from octavo.ops.cpu.engine import TYPES, NativeEngine, PackedMatrix
from octavo.ops.stored import StoredMatrix
from octavo.weights.footprint import PACKED_BITS
from octavo.weights.gguf.dequant import BLOCK_TYPES

ROWS, COLUMNS, MATRICES = 1024, 1536, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kernels", help="an instruction set instead of the fastest")
    parser.add_argument("--kinds", nargs="+", default=list(PACKED_BITS))
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    native = NativeEngine(1, options.kernels)
    matrices = {kind: [matrix(native, kind, seed) for seed in range(MATRICES)] for kind in options.kinds}
    best = {kind: dict.fromkeys(options.tokens, float("inf")) for kind in options.kinds}
    for _ in range(options.rounds):
        for tokens in options.tokens:
            x_TI = torch.randn(tokens, COLUMNS)
            for kind in options.kinds:
                best[kind][tokens] = min(best[kind][tokens], milliseconds(native, matrices[kind], x_TI))
    print(f"{native.kernels}, ms for 100 M weights with {options.tokens} tokens")
    for kind, found in best.items():
        print(f"{kind:8} {PACKED_BITS[kind]:4} bits", *(f"{ms:7.2f}" for ms in found.values()))
    if options.out:
        record = {"kernels": native.kernels, "tokens": options.tokens}
        record["ms"] = {kind: [round(ms, 2) for ms in found.values()] for kind, found in best.items()}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def matrix(native: NativeEngine, kind: str, seed: int) -> PackedMatrix:
    block = BLOCK_TYPES[TYPES[kind]]
    row_bytes = COLUMNS // block.block_size * block.block_bytes
    data = np.random.default_rng(seed).integers(0, 64, (ROWS, row_bytes), dtype=np.uint8)  # scales are finite
    return native.pack(StoredMatrix(kind=kind, columns=COLUMNS, data=data))


def milliseconds(native: NativeEngine, matrices: list[PackedMatrix], x_TI: torch.Tensor) -> float:
    began = time.thread_time()
    for packed in matrices:
        native.linear(x_TI, [packed], None)
    return 1e3 * (time.thread_time() - began) * 1e8 / (len(matrices) * ROWS * COLUMNS)


if __name__ == "__main__":
    main()
