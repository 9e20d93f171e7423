"""Instructions of a product, counted by callgrind: the same on any machine, however busy.

    python benchmarks/cpu/instructions.py [--kernels avx2]

Valgrind knows no AVX-512, so kernels up to AVX2 can be counted. One matrix of 576 x 1536 (the default
model's widths) of each kind with 1 and 64 tokens, in a process that imports no torch. Prints instructions
for 1000 multiplications.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS, COLUMNS = 576, 1536
KINDS = {"F32": (0, 4 * COLUMNS), "BF16": (30, 2 * COLUMNS), "Q8_0": (8, 34 * COLUMNS // 32)}
KINDS |= {
    "Q4_1": (3, 20 * COLUMNS // 32),
    "Q4_K": (12, 144 * COLUMNS // 256),
    "Q6_K": (14, 210 * COLUMNS // 256),
    "Q2_K": (10, 84 * COLUMNS // 256),
    "Q3_K": (11, 110 * COLUMNS // 256),
    "IQ4_XS": (23, 136 * COLUMNS // 256),
    "IQ2_XXS": (16, 66 * COLUMNS // 256),
    "IQ2_XS": (17, 74 * COLUMNS // 256),
    "IQ3_XXS": (18, 98 * COLUMNS // 256),
    "TQ2_0": (35, 66 * COLUMNS // 256),
    "MXFP4": (39, 17 * COLUMNS // 32),
}
"""GGUF's number, and bytes of a row."""
POINTS = 512 * 8
"""Bytes of the largest grid of these types; all are the lowest level, as all blocks are zero."""
TOKENS = (1, 64)
COLLECTED = re.compile(r"Collected : (\d+)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kernels", default="avx2")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        multiply(options.kernels, options.child[0], *map(int, options.child[1:]))
        return
    for kind in KINDS:
        counts = [count(options.kernels, kind, tokens) for tokens in TOKENS]
        per_thousand = [
            1000 * found / (ROWS * COLUMNS * tokens) for found, tokens in zip(counts, TOKENS, strict=True)
        ]
        print(
            f"{options.kernels} {kind:5}",
            *(f"{t:3} tokens {n:7.1f}" for t, n in zip(TOKENS, per_thousand, strict=True)),
        )


def count(kernels: str, kind: str, tokens: int) -> float:
    """Instructions of one product: what a process with more of them executes beyond one with fewer."""
    few, many = 1, 5
    return (total(kernels, kind, tokens, many) - total(kernels, kind, tokens, few)) / (many - few)


def total(kernels: str, kind: str, tokens: int, products: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={folder}/out",
            sys.executable,
            __file__,
        ]
        command += ["--kernels", kernels, "--child", kind, str(tokens), str(products)]
        said = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": "0"},
        ).stderr
    found = COLLECTED.search(said)
    assert found is not None, said
    return int(found[1])


def multiply(kernels: str, kind: str, tokens: int, products: int) -> None:
    """So many products in this process."""
    from octavo.base.native import native_library
    from octavo.ops.cpu.structs import MatrixStruct

    library = native_library()
    assert library is not None, "no native kernels were compiled"
    library.octavo_open.restype = ctypes.c_void_p
    library.octavo_packed_bytes.restype = ctypes.c_int64
    engine = ctypes.c_void_p(library.octavo_open(1, kernels.encode()))
    assert engine, f"this processor (or Valgrind) has no {kernels}"
    number, row_bytes = KINDS[kind]
    form = library.octavo_form(number)
    stored, grid = ctypes.create_string_buffer(ROWS * row_bytes), ctypes.create_string_buffer(POINTS)
    packed = ctypes.create_string_buffer(
        library.octavo_packed_bytes(form, ctypes.c_int64(ROWS), ctypes.c_int64(COLUMNS))
    )
    library.octavo_pack(
        engine,
        number,
        grid,
        stored,
        ctypes.c_int64(row_bytes),
        ctypes.c_int64(ROWS),
        ctypes.c_int32(COLUMNS),
        packed,
    )
    matrix = MatrixStruct(ctypes.addressof(packed), form, ROWS, COLUMNS)
    x, y = (
        (ctypes.c_float * (tokens * COLUMNS))(*([0.5] * tokens * COLUMNS)),
        (ctypes.c_float * (tokens * ROWS))(),
    )
    for _ in range(products):
        library.octavo_linear(engine, ctypes.byref(matrix), 1, x, tokens, y, ctypes.c_int64(ROWS), None, 0)


if __name__ == "__main__":
    main()
