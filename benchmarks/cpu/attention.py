"""The attention kernel by itself: microseconds a layer, for every number that keys and values are kept in.

    python benchmarks/cpu/attention.py --threads 1 --out results.json

At the default model's shape. Blocks lie anywhere in a pool of 256 MB, more than the caches hold, and each
call reads other ones. Kinds take turns; the best of some rounds counts, as other programs only ever slow a
kernel down.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from ctypes import byref
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from octavo.attention.backends.native import pages_struct  # noqa: E402
from octavo.attention.contract import PageLayout  # noqa: E402
from octavo.ops.cpu.engine import NativeEngine  # noqa: E402
from octavo.ops.cpu.structs import HeadsStruct, PageTablesStruct, TokensStruct  # noqa: E402

HEADS, KV_HEADS, HEAD_DIM, BLOCK_SIZE = 9, 3, 64, 16
POOL_BYTES = 256 << 20
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


class Shape(NamedTuple):
    streams: int
    before: int
    """Tokens whose keys and values are there."""
    new: int
    """Tokens of each stream in this step."""


SHAPES = [Shape(1, 128, 1), Shape(1, 8192, 1), Shape(32, 190, 1), Shape(8, 2048, 1), Shape(1, 1024, 512)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kernels", help="an instruction set instead of the fastest")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    native = NativeEngine(options.threads, options.kernels)
    rows = []
    for shape in SHAPES:
        best = dict.fromkeys(DTYPES, float("inf"))
        cases = {name: Case(native, shape, dtype) for name, dtype in DTYPES.items()}
        for _ in range(options.rounds):
            for name, case in cases.items():
                best[name] = min(best[name], case.seconds())
        row = {name: round(seconds * 1e6, 1) for name, seconds in best.items()}
        rows.append({**shape._asdict(), "us": row})
        print(rows[-1], flush=True)
    if options.out:
        found = {"kernels": native.kernels, "threads": options.threads, "results": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


class Case:
    """A step over one pool of pages, at other blocks in every call."""

    def __init__(self, native: NativeEngine, shape: Shape, dtype: torch.dtype) -> None:
        scale = 4 if dtype is torch.int8 else 0
        width = KV_HEADS * (HEAD_DIM * dtype.itemsize + scale)
        layout = PageLayout(
            block_size=BLOCK_SIZE,
            rows_per_page=2 * BLOCK_SIZE,
            num_kv_heads=KV_HEADS,
            head_dim=HEAD_DIM,
            window=None,
            dtype=dtype,
            device=torch.device("cpu"),
            is_head_major=True,
            turns_keys=True,
            scale_bytes=scale,
        )
        self._per_stream = -(-(shape.before + shape.new) // BLOCK_SIZE)
        self._num_blocks = max(POOL_BYTES // (2 * BLOCK_SIZE * width), shape.streams * self._per_stream)
        bytes_B = torch.randint(0, 60, (self._num_blocks * 2 * BLOCK_SIZE * width,), dtype=torch.uint8)
        self._pages = layout.pages(bytes_B.view(dtype).view(-1, width // dtype.itemsize))
        self._native, self._shape, self._layout = native, shape, layout
        self._num_tokens = shape.streams * shape.new
        self._qkv_TO = torch.randn(self._num_tokens, (HEADS + 2 * KV_HEADS) * HEAD_DIM)
        self._out_TI = torch.empty(self._num_tokens, HEADS * HEAD_DIM)
        self._calls = max(2, 4096 // (shape.streams * (shape.before + shape.new)))

    def seconds(self) -> float:
        """A call."""
        steps = [self._step() for _ in range(self._calls)]
        began = time.perf_counter()
        for arguments in steps:
            self._native.attention(*arguments[0], self._qkv_TO, self._out_TI)
        return (time.perf_counter() - began) / self._calls

    def _step(self) -> tuple[tuple[object, ...], tuple[torch.Tensor, ...]]:
        """What the kernel is given, and the arrays that this points to."""
        streams, before, new = self._shape
        tables_SM = torch.randperm(self._num_blocks)[: streams * self._per_stream].int().view(streams, -1)
        positions_T = (before + torch.arange(new, dtype=torch.int32)).repeat(streams)
        rows_S = torch.arange(streams, dtype=torch.int32)
        starts_S1 = torch.arange(streams + 1, dtype=torch.int32) * new
        blocks_T = tables_SM[rows_S.repeat_interleave(new).long(), (positions_T // BLOCK_SIZE).long()]
        slots_T = blocks_T * BLOCK_SIZE + positions_T % BLOCK_SIZE
        heads = HeadsStruct(num_heads=HEADS, num_kv_heads=KV_HEADS, head_dim=HEAD_DIM, scale=HEAD_DIM**-0.5)
        tokens = TokensStruct(
            positions_T.data_ptr(), starts_S1.data_ptr(), rows_S.data_ptr(), len(positions_T), streams
        )
        tables = PageTablesStruct(slots_T.data_ptr(), tables_SM.data_ptr(), tables_SM.stride(0))
        structs = (heads, pages_struct(self._pages, self._layout), tokens, tables)
        return tuple(map(byref, structs)), (positions_T, starts_S1, rows_S, slots_T, tables_SM)


if __name__ == "__main__":
    main()
