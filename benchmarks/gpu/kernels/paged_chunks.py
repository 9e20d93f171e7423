"""Attention of chunks over paged KV: tiles of our kernel beside cuDNN, torch's varlen and flash-attn-4.

Run on a GPU: PYTHONPATH=. python3 benchmarks/gpu/kernels/paged_chunks.py [output.json]. Results are checked
first, on fresh random data, against float32. The last line is JSON: the best tile of every case, and from
which length dense prefill wins.

S sequences, T query tokens, H query heads, K KV heads, D head width, B blocks, N tokens per block.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.attention.varlen import varlen_attn

from benchmarks.gpu.timing import graph_time_us
from octavo.attention.dense_prefill import dense_prefill
from octavo.ops.paged_plain import AttentionTerms, paged_attention
from octavo.ops.triton.paged_chunks import ChunkTile, paged_chunks

PEAK = 750.0  # TFLOP/s of a large bf16 product on an H100
BLOCK_SIZE = 16
L2_BYTES = 50e6
DTYPE = torch.bfloat16


class Shape(NamedTuple):
    name: str
    num_heads: int
    num_kv_heads: int
    head_dim: int


class Case(NamedTuple):
    """`count` sequences that compute the last `queries` of `length` tokens; they share the first `shared`."""

    name: str
    count: int
    queries: int
    length: int
    shared: int = 0

    @property
    def is_prefill(self) -> bool:
        return self.queries == self.length

    def operations(self, shape: Shape) -> float:
        seen = self.queries * (self.length - self.queries) + self.queries * (self.queries + 1) / 2
        return 4.0 * self.count * seen * shape.num_heads * shape.head_dim


SHAPES = [Shape("llama8b", 32, 8, 128), Shape("qwen0.6b", 16, 8, 128)]
CASES = [
    Case("prefill 2 x 8192", 2, 8192, 8192),
    Case("prefill 8 x 2048", 8, 2048, 2048),
    Case("prefill 1 x 1000", 1, 1000, 1000),
    Case("prefill 1 x 512", 1, 512, 512),
    Case("chunk of 2048 to 8192", 1, 2048, 8192),
    Case("W4: 256 x 64 to 2112", 256, 64, 2112, shared=2048),
    Case("16 x 128 to 2048", 16, 128, 2048),
    Case("64 x 8 to 1024", 64, 8, 1024),
]
TILES = [
    ChunkTile(128, 64, 8, 3),
    ChunkTile(128, 64, 8, 2),
    ChunkTile(128, 128, 8, 3),
    ChunkTile(128, 128, 8, 2),
    ChunkTile(64, 64, 4, 2),
    ChunkTile(64, 64, 4, 3),
]


class Step:
    """Tensors of one case."""

    def __init__(self, case: Case, shape: Shape) -> None:
        self.case, self.shape = case, shape
        self.terms = AttentionTerms(scale=shape.head_dim**-0.5)
        blocks, shared = -(-case.length // BLOCK_SIZE), case.shared // BLOCK_SIZE
        own = blocks - shared
        num_blocks = 1 + shared + case.count * own
        ids = torch.randperm(num_blocks - 1, device="cuda").int() + 1
        self.table_RM = torch.cat(
            (ids[:shared].expand(case.count, -1), ids[shared:].view(case.count, own)), 1
        ).contiguous()
        pages = torch.randn(
            num_blocks, 2, shape.num_kv_heads, BLOCK_SIZE, shape.head_dim, device="cuda", dtype=DTYPE
        )
        pages[0] = math.nan
        if case.length % BLOCK_SIZE:
            pages[self.table_RM[:, -1].long(), :, :, case.length % BLOCK_SIZE :] = math.nan
        self.keys_BKND, self.values_BKND = pages[:, 0], pages[:, 1]
        num_tokens = case.count * case.queries
        # As a fused projection leaves them. Dense attention reads its own keys and values from here.
        self.fused = torch.randn(
            num_tokens,
            shape.num_heads + 2 * shape.num_kv_heads,
            shape.head_dim,
            device="cuda",
            dtype=DTYPE,
        )
        self.q_THD = self.fused[:, : shape.num_heads]
        self.out_THD = torch.empty(self.q_THD.shape, device="cuda", dtype=DTYPE)
        self.rows_S = torch.arange(case.count, device="cuda", dtype=torch.int32)
        self.starts_S1 = torch.arange(case.count + 1, device="cuda", dtype=torch.int32) * case.queries
        self.lengths_S = torch.full((case.count,), case.length, device="cuda", dtype=torch.int32)
        self.counts = torch.tensor([0, case.count, num_tokens], device="cuda", dtype=torch.int32)

    def paged(self, tile: ChunkTile | None) -> None:
        paged_chunks(
            self.q_THD,
            self.keys_BKND,
            self.values_BKND,
            self.table_RM,
            self.rows_S,
            self.starts_S1,
            self.lengths_S,
            self.counts,
            self.out_THD,
            self.terms,
            max_tokens=self.case.count * self.case.queries,
            max_seqs=self.case.count,
            tile=tile,
        )

    def dense(self) -> None:
        heads = (self.shape.num_heads, self.shape.num_kv_heads, self.shape.num_kv_heads)
        for start in range(0, len(self.fused), self.case.queries):
            prompt = slice(start, start + self.case.queries)
            q_THD, k_TKD, v_TKD = self.fused[prompt].split(heads, dim=1)
            self.out_THD[prompt] = dense_prefill(q_THD, k_TKD, v_TKD, self.terms.scale)

    def varlen(self) -> Callable[[], object]:
        """torch's varlen attention over keys and values laid out one sequence after the other (no paging)."""
        k_TKD, v_TKD = (
            pages[self.table_RM.long()].transpose(2, 3).flatten(1, 2)[:, : self.case.length].flatten(0, 1)
            for pages in (self.keys_BKND, self.values_BKND)
        )
        ends_S1 = torch.arange(self.case.count + 1, device="cuda", dtype=torch.int32) * self.case.length
        grouped = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
        return lambda: varlen_attn(
            self.q_THD,
            k_TKD,
            v_TKD,
            self.starts_S1,
            ends_S1,
            self.case.queries,
            self.case.length,
            scale=self.terms.scale,
            window_size=(-1, 0),
            **grouped,
        )

    def flash(self) -> Callable[[], None]:
        """flash-attn-4, if it is installed, on the same pages and for the same answer."""
        from flash_attn.cute import flash_attn_varlen_func

        # It wants [block, token in block, KV head, D]; strides are free.
        keys_BNKD, values_BNKD = self.keys_BKND.transpose(1, 2), self.values_BKND.transpose(1, 2)

        def run() -> None:
            found = flash_attn_varlen_func(
                self.q_THD,
                keys_BNKD,
                values_BNKD,
                cu_seqlens_q=self.starts_S1,
                seqused_k=self.lengths_S,
                page_table=self.table_RM,
                max_seqlen_q=self.case.queries,
                max_seqlen_k=self.case.length,
                softmax_scale=self.terms.scale,
                causal=True,
            )
            self.out_THD.copy_(found[0] if isinstance(found, tuple) else found)

        return run

    def num_bytes(self) -> int:
        pages = 2 * self.table_RM.unique().numel() * self.keys_BKND[0].numel()
        return (pages + self.q_THD.numel() + self.out_THD.numel()) * DTYPE.itemsize

    def error(self, *, is_paged: bool) -> float:
        """Of the first and the last up to 128 tokens of the first and the last sequence."""
        case, heads = self.case, self.shape.num_heads
        wrong = right = 0.0
        for i in {0, case.count - 1}:
            start = i * case.queries
            width = min(case.queries, 128)
            for offset in {0, case.queries - width}:
                first, length = start + offset, case.length - case.queries + offset + width
                if is_paged:
                    pages = (self.keys_BKND, self.values_BKND)
                    table_SM = self.table_RM[i : i + 1]
                else:
                    k_and_v = self.fused[start : start + case.length, heads:].transpose(0, 1)[None]
                    pages = k_and_v.chunk(2, dim=1)
                    table_SM = torch.zeros(1, 1, device="cuda", dtype=torch.int32)
                q_THD = self.q_THD[first : first + width].float()
                expected = paged_attention(q_THD, *pages, table_SM, [0, width], [length], self.terms)
                wrong += (self.out_THD[first : first + width].float() - expected).square().sum().item()
                right += expected.square().sum().item()
        return math.sqrt(wrong / right)


def main() -> None:
    print(torch.cuda.get_device_name(), torch.__version__, "cuDNN", torch.backends.cudnn.version())
    print(f"{'shape':9}{'case':24}{'kernel':22}{'us':>9}{'TFLOP/s':>9}{'of peak':>8}{'error':>9}")
    begin, results = time.perf_counter(), {}
    for shape in SHAPES:
        for case in CASES:
            torch.cuda.empty_cache()
            results[f"{shape.name}: {case.name}"] = _measure(case, shape)
    print(
        f"{time.perf_counter() - begin:.0f} s in all; host time of dense prefill {_host_us():.0f} us a call"
    )
    text = json.dumps(results)
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            file.write(text)
    best = {name: min(rows.items(), key=lambda row: row[1]) for name, rows in results.items() if rows}
    print(json.dumps({"best_us": best}))


def _measure(case: Case, shape: Shape) -> dict[str, float]:
    """Microseconds by kernel."""
    steps = [Step(case, shape)]
    while len(steps) * steps[0].num_bytes() < 3 * L2_BYTES:
        steps.append(Step(case, shape))
    rows: dict[str, float] = {}

    def record(name: str, call_of: Callable[[Step], Callable[[], object]], is_paged: bool | None) -> None:
        try:
            calls = [call_of(step) for step in steps]
            steps[0].out_THD.fill_(math.nan)
            calls[0]()
            error = math.nan if is_paged is None else steps[0].error(is_paged=is_paged)
            us = graph_time_us(calls)
        except Exception as problem:  # one that cannot run must not hide the others
            print(f"{shape.name:9}{case.name:24}{name:22}{type(problem).__name__}: {str(problem)[:90]}")
            return
        rate = case.operations(shape) / us / 1e6
        print(
            f"{shape.name:9}{case.name:24}{name:22}{us:9.1f}{rate:9.0f}{rate / PEAK:8.2f}{error:9.4f}",
            "" if is_paged is None or error < 6e-3 else "WRONG",
            flush=True,
        )
        if is_paged is None or error < 6e-3:
            rows[name] = us

    for tile in TILES:
        name = f"paged {tile.rows} x {tile.keys} w{tile.warps} s{tile.stages}"
        record(name, lambda step, tile=tile: lambda: step.paged(tile), True)
    record("paged, own choice", lambda step: lambda: step.paged(None), True)
    if case.is_prefill:
        record("dense prefill", lambda step: step.dense, False)
    record("varlen, not paged", Step.varlen, None)
    if importlib.util.find_spec("flash_attn") is not None:
        record("flash-attn-4 and a copy", Step.flash, True)
    return rows


def _host_us() -> float:
    """What one call costs before the GPU begins."""
    step = Step(Case("", 1, 512, 512), SHAPES[1])
    step.dense()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(50):
        step.dense()
    elapsed = time.perf_counter() - begin
    torch.cuda.synchronize()
    return elapsed / 50 * 1e6


if __name__ == "__main__":
    main()
