"""Products of plain weights (float32, bfloat16, float16) beside torch's, turn by turn.

    python benchmarks/cpu/plain_products.py [--threads 2] [--kernels avx2] [--out results.json]

Every matrix of the default model once, so none is cached. Medians; GB/s are of weights, G/s multiplications.
torch: oneDNN's product on [O, I] (what decision 0022 is about) and MKL's on [I, O], both in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.cpu.products import LAYERS, SHAPES
from octavo.base.native import physical_cores
from octavo.ops.cpu.engine import NativeEngine
from octavo.ops.stored import StoredMatrix

KINDS = {"F32": 4, "BF16": 2, "F16": 2}
"""Bytes of a number."""
NUM_PRODUCTS = LAYERS * sum(rows * columns for rows, columns in SHAPES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--kernels", help="an instruction set instead of the fastest")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cpu-time", action="store_true", help="for a busy machine, with one thread")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    native = NativeEngine(options.threads, options.kernels)
    runs = {kind: ours(native, kind) for kind in KINDS} | {"oneDNN": by_onednn(), "MKL": by_mkl()}
    print(f"{native.kernels}, {native.num_threads} threads")
    clock = time.thread_time if options.cpu_time else time.perf_counter
    found = []
    for num_tokens in options.tokens:
        seconds = timed(runs, num_tokens, options.rounds, clock)
        found.append({"tokens": num_tokens, "ms": {name: round(1e3 * s, 2) for name, s in seconds.items()}})
        print(
            f"{num_tokens:4} tokens:", *(line(name, num_tokens, s) for name, s in seconds.items()), flush=True
        )
    if options.out:
        record = {
            "kernels": native.kernels,
            "threads": native.num_threads,
            "clock": "CPU" if options.cpu_time else "wall",
            "torch": torch.__version__,
            "layers": found,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n")


Run = Callable[[dict[int, torch.Tensor]], None]
"""All products of the layers, on inputs by their width."""


def ours(native: NativeEngine, kind: str) -> Run:
    def matrix(rows: int, columns: int) -> StoredMatrix:
        data = np.full((rows, columns * KINDS[kind]), 60, dtype=np.uint8)
        return StoredMatrix(kind=kind, columns=columns, data=data)

    matrices = [native.pack(matrix(*shape)) for _ in range(LAYERS) for shape in SHAPES]

    def run(inputs: dict[int, torch.Tensor]) -> None:
        for packed in matrices:
            native.linear(inputs[packed.struct.columns], [packed], None)

    return run


def by_onednn() -> Run:
    matrices = [torch.randn(shape) for _ in range(LAYERS) for shape in SHAPES]

    def run(inputs: dict[int, torch.Tensor]) -> None:
        for weight_OI in matrices:
            x_TI = inputs[weight_OI.shape[1]]
            torch.ops.mkldnn._linear_pointwise(x_TI, weight_OI, None, "none", [], "")

    return run


def by_mkl() -> Run:
    matrices = [torch.randn(shape[::-1]) for _ in range(LAYERS) for shape in SHAPES]

    def run(inputs: dict[int, torch.Tensor]) -> None:
        for weight_IO in matrices:
            torch.mm(inputs[len(weight_IO)], weight_IO)

    return run


def timed(runs: dict[str, Run], num_tokens: int, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of each, in turns."""
    inputs = {columns: torch.randn(num_tokens, columns) for _, columns in SHAPES}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = clock()
            run(inputs)
            found[name].append(clock() - began)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def line(name: str, num_tokens: int, seconds: float) -> str:
    gigabytes, products = NUM_PRODUCTS * KINDS.get(name, 4) / 1e9, num_tokens * NUM_PRODUCTS / 1e9
    return f"{name} {1e3 * seconds:.1f} ms {gigabytes / seconds:.1f} GB/s {products / seconds:.0f} G/s;"


if __name__ == "__main__":
    main()
