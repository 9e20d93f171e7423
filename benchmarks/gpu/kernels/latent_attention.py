"""Latent attention at DeepSeek's widths: decode and chunks by tile, prompts expanded, and what stands around.

Run on a GPU: PYTHONPATH=. python3 benchmarks/gpu/kernels/latent_attention.py [output.json]. Results are
checked first, on fresh random data, against float32. The last line is JSON: the fastest of every case.

T tokens, H heads, C 512 latent, R 64 rotated, W = C + R, D 192 width of queries, V 128 of values.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.functional import pad

from benchmarks.gpu.timing import graph_time_us
from octavo.attention.dense_chunk import dense_chunk
from octavo.attention.dense_prefill import dense_prefill
from octavo.ops.head_product import head_product
from octavo.ops.latents import prepare_latents
from octavo.ops.paged_plain import AttentionTerms, paged_attention
from octavo.ops.triton.latent_chunks import latent_chunks
from octavo.ops.triton.latent_decode import latent_decode
from octavo.ops.triton.latent_states import LatentTile, head_blocks
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace

BANDWIDTH = 3.35  # TB/s
PEAK = 750.0  # TFLOP/s of a large bf16 product on an H100
L2_BYTES = 50e6
C, R, NOPE, V, BLOCK = 512, 64, 128, 128, 16
SCALE = 192**-0.5
DTYPE, DEVICE = torch.bfloat16, torch.device("cuda")
TOLERANCE = 6e-3
HEADS = {"V2-Lite": 16, "V3": 128}


def tile(rows: int, keys: int, num_warps: int, num_stages: int) -> LatentTile:
    return LatentTile(rows=rows, keys=keys, num_warps=num_warps, num_stages=num_stages)


FEW_ROWS = [
    tile(16, 32, 4, 3),
    tile(16, 32, 4, 4),
    tile(16, 64, 4, 2),
    tile(16, 64, 4, 3),
]
MANY_ROWS = [
    tile(64, 64, 8, 2),
    tile(64, 32, 8, 2),
    tile(64, 32, 8, 3),
    tile(64, 32, 8, 4),
]


class Case(NamedTuple):
    """`count` sequences that compute the last `queries` of `length` tokens."""

    count: int
    queries: int
    length: int

    @property
    def name(self) -> str:
        return f"{self.count} x {self.queries} to {self.length}"

    def pairs(self) -> float:
        return self.count * self.queries * (self.length - (self.queries - 1) / 2)


DECODES = [Case(1, 1, 4096), Case(256, 1, 384), Case(32, 1, 4096)]
CHUNKS = [Case(16, 128, 2048), Case(1, 2048, 8192), Case(64, 8, 1024)]
PROMPTS = [Case(1, 512, 512), Case(1, 1024, 1024), Case(1, 2048, 2048), Case(1, 8192, 8192)]


class Step:
    """Tensors of one case."""

    def __init__(self, case: Case, num_heads: int) -> None:
        self.case, self.num_heads = case, num_heads
        blocks, num_tokens = -(-case.length // BLOCK), case.count * case.queries
        ids = torch.randperm(case.count * blocks, device=DEVICE).int() + 1
        self.table_RM = ids.view(case.count, blocks)
        self.pages_BNW = torch.randn(1 + len(ids), BLOCK, C + R, device=DEVICE, dtype=DTYPE)
        self.q_THC = torch.randn(num_tokens, num_heads, C, device=DEVICE, dtype=DTYPE)
        self.qkv_TO = torch.randn(num_tokens, num_heads * (NOPE + R) + C + R, device=DEVICE, dtype=DTYPE)
        self.q_THD = self.qkv_TO[:, : num_heads * (NOPE + R)].view(num_tokens, num_heads, NOPE + R)
        self.rows_TW = self.qkv_TO[:, num_heads * (NOPE + R) :]
        self.q_THR = self.q_THD[..., NOPE:]
        self.out_THC = torch.empty_like(self.q_THC)
        self.rows_S = torch.arange(case.count, device=DEVICE, dtype=torch.int32)
        self.starts_S1 = torch.arange(case.count + 1, device=DEVICE, dtype=torch.int32) * case.queries
        self.lengths_S = torch.full((case.count,), case.length, device=DEVICE, dtype=torch.int32)
        num_singles = case.count if case.queries == 1 else 0
        counts = [num_singles, case.count, num_tokens, 0, case.count]
        self.counts = torch.tensor(counts, device=DEVICE, dtype=torch.int32)
        self.up_HUC = torch.randn(num_heads, NOPE + V, C, device=DEVICE, dtype=DTYPE) / 23
        self.rotation_PR = torch.randn(case.length, R, device=DEVICE)
        self.norm_C = torch.randn(C, device=DEVICE, dtype=DTYPE)
        self.positions_T = torch.zeros(num_tokens, device=DEVICE, dtype=torch.int32)
        self.slots_T = torch.arange(num_tokens, device=DEVICE, dtype=torch.int32)

    def decode(self, workspace: DecodeWorkspace, num_splits: int | None, choice: LatentTile | None) -> None:
        latent_decode(
            self.q_THC,
            self.q_THR,
            self.pages_BNW,
            self.table_RM,
            self.rows_S,
            self.lengths_S,
            self.counts,
            self.out_THC,
            SCALE,
            num_seqs=self.case.count,
            workspace=workspace,
            num_splits=num_splits,
            tile=choice,
        )

    def chunks(self, choice: LatentTile | None) -> None:
        latent_chunks(
            self.q_THC,
            self.q_THR,
            self.pages_BNW,
            self.table_RM,
            self.rows_S,
            self.starts_S1,
            self.lengths_S,
            self.counts,
            self.out_THC,
            SCALE,
            max_tokens=self.case.count * self.case.queries,
            max_seqs=self.case.count,
            tile=choice,
        )

    def expanded(self, *, is_padded: bool) -> torch.Tensor:
        """Keys and values of a prompt, and dense attention; padded: values are as wide as keys."""
        k_THD, v_THV = self._keys_and_values(self.rows_TW)
        if is_padded:
            v_THV = pad(v_THV, (0, NOPE + R - V))
        return dense_prefill(self.q_THD, k_THD, v_THV, SCALE)[..., :V]

    def _keys_and_values(self, rows_LW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        up_LO = torch.nn.functional.linear(rows_LW[:, :C], self.up_HUC.flatten(0, 1))
        up_LHU = up_LO.view(len(rows_LW), self.num_heads, -1)
        rotated_LHR = rows_LW[:, None, C:].expand(-1, self.num_heads, -1)
        return torch.cat((up_LHU[..., :NOPE], rotated_LHR), -1), up_LHU[..., NOPE:]

    def expanded_chunk(self) -> torch.Tensor:
        """The same over a past: rows are gathered first."""
        rows_LW = self.pages_BNW[self.table_RM[0].long()].flatten(0, 1)[: self.case.length]
        return dense_chunk(self.q_THD, *self._keys_and_values(rows_LW), SCALE)

    def absorb(self) -> torch.Tensor:
        return head_product.plain(self.q_THD[..., :NOPE], self.up_HUC[:, :NOPE].transpose(1, 2))

    def to_values(self) -> torch.Tensor:
        return head_product.plain(self.q_THC, self.up_HUC[:, NOPE:])

    def prepare(self) -> None:
        prepare_latents.on(DEVICE)(
            self.q_THR,
            self.rows_TW,
            self.positions_T,
            self.slots_T,
            self.rotation_PR,
            self.norm_C,
            1e-6,
            self.pages_BNW,
        )

    def num_bytes(self) -> float:
        return float((self.pages_BNW.numel() + 2 * self.q_THC.numel()) * DTYPE.itemsize)

    def error(self) -> float:
        """Of the last up to 32 tokens of the first and the last sequence."""
        wrong = right = 0.0
        for i in {0, self.case.count - 1}:
            last = (i + 1) * self.case.queries
            part = slice(last - min(32, self.case.queries), last)
            q_THW = torch.cat((self.q_THC[part], self.q_THR[part]), -1).float()
            pages = self.pages_BNW[:, None], self.pages_BNW[:, None, :, :C]
            table_SM, terms = self.table_RM[i : i + 1], AttentionTerms(scale=SCALE)
            expected = paged_attention(q_THW, *pages, table_SM, [0, len(q_THW)], [self.case.length], terms)
            wrong += (self.out_THC[part].float() - expected).square().sum().item()
            right += expected.square().sum().item()
        return math.sqrt(wrong / right)


def steps_of(case: Case, num_heads: int) -> list[Step]:
    """So many that the cache does not answer in the memory's place."""
    steps = [Step(case, num_heads)]
    while len(steps) * steps[0].num_bytes() < 3 * L2_BYTES and len(steps) < 64:
        steps.append(Step(case, num_heads))
    return steps


class Table:
    """Rows of one case, the fastest kept."""

    def __init__(self, name: str, case: Case, num_heads: int) -> None:
        self.name = f"{name} {case.name}"
        self.num_bytes = case.count * case.length * (C + R) * 2
        self.operations = {
            "absorbed": 2 * case.pairs() * num_heads * (2 * C + R),
            "expanded": 2
            * num_heads
            * (case.pairs() * (NOPE + R + V) + case.count * case.length * C * (NOPE + V)),
        }
        self.best: tuple[float, str] | None = None
        limit_us = max(self.num_bytes / BANDWIDTH / 1e6, min(self.operations.values()) / PEAK / 1e6)
        print(f"\n{self.name}: {self.num_bytes / 1e6:.1f} MB of rows; no faster than {limit_us:.1f} us")

    def record(
        self, label: str, calls: list[Callable[[], object]], form: str, check: Callable[[], float]
    ) -> None:
        try:
            calls[0]()
            error = check()
            us = graph_time_us(calls * max(1, 8 // len(calls)))
        except Exception as problem:  # one that cannot run must not hide the others
            print(f"  {label:34}{type(problem).__name__}: {str(problem)[:90]}")
            return
        tbps, tflops = self.num_bytes / us / 1e6, self.operations[form] / us / 1e6
        print(
            f"  {label:34}{us:9.1f} us {tbps / BANDWIDTH:6.2f} of bandwidth {tflops:6.0f} TFLOP/s, "
            f"{tflops / PEAK:.2f} of peak, error {error:.1e}{'' if error < TOLERANCE else ' WRONG'}",
            flush=True,
        )
        if error < TOLERANCE and (self.best is None or us < self.best[0]):
            self.best = us, label


def decode(name: str, num_heads: int, case: Case) -> Table:
    steps, table = steps_of(case, num_heads), Table(name, case, num_heads)
    num_parts = head_blocks(num_heads)
    for num_splits in (None, 1, 8, 16, 32, 64):
        if num_splits is not None and num_splits * case.count > 1024:
            continue
        workspace = DecodeWorkspace.allocate(
            max_seqs=case.count,
            num_heads=num_heads,
            num_kv_heads=num_parts,
            head_dim=C,
            device=DEVICE,
            num_splits=num_splits,
        )
        few = FEW_ROWS if num_heads // num_parts <= 16 else []
        for choice in [None, *few, *MANY_ROWS] if num_splits in (None, 16) else [None]:
            calls = [partial(step.decode, workspace, num_splits, choice) for step in steps]
            label = f"splits {num_splits}, {show(choice)}"
            table.record(label, calls, "absorbed", steps[0].error)
    return table


def chunks(name: str, num_heads: int, case: Case) -> Table:
    steps, table = steps_of(case, num_heads), Table(name, case, num_heads)
    for choice in (None, *MANY_ROWS):
        calls = [partial(step.chunks, choice) for step in steps]
        table.record(f"chunks, {show(choice)}", calls, "absorbed", steps[0].error)
    if case.count == 1 and case.queries < case.length:
        calls = [step.expanded_chunk for step in steps]
        table.record("expanded over the pages", calls, "expanded", lambda: 0.0)  # as below
    if case.queries == case.length:
        for is_padded in (False, True):
            calls = [partial(step.expanded, is_padded=is_padded) for step in steps]
            label = f"expanded, {'values padded' if is_padded else 'as they are'}"
            table.record(label, calls, "expanded", lambda: 0.0)  # another sum: tests/gpu compares it
    return table


def around(name: str, num_heads: int) -> None:
    """What else a layer does."""
    print(f"\n{name}: microseconds by tokens")
    for num_tokens in (1, 8, 64, 256, 2048, 8192):
        steps = [Step(Case(num_tokens, 1, BLOCK), num_heads) for _ in range(3)]
        parts = {part: graph_time_us([getattr(step, part) for step in steps] * 3) for part in PARTS}
        print(f"  {num_tokens:6}", ", ".join(f"{part} {us:.1f}" for part, us in parts.items()), flush=True)


PARTS = ("prepare", "absorb", "to_values")


def show(choice: LatentTile | None) -> str:
    return (
        "own choice"
        if choice is None
        else f"{choice.rows} x {choice.keys} w{choice.num_warps} s{choice.num_stages}"
    )


def main() -> None:
    print(torch.cuda.get_device_name(), torch.__version__)
    tables: list[Table] = []
    for name, num_heads in HEADS.items():
        tables += [decode(name, num_heads, case) for case in DECODES]
        tables += [chunks(name, num_heads, case) for case in [*CHUNKS, *PROMPTS]]
        around(name, num_heads)
    text = json.dumps({table.name: table.best for table in tables})
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            file.write(text)
    print(text)


if __name__ == "__main__":
    main()
