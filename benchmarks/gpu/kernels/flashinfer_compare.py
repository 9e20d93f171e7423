"""FlashInfer's attention over paged KV beside ours, on the same pages of the same numbers.

Run on a GPU with FlashInfer: PYTHONPATH=. python3 benchmarks/gpu/kernels/flashinfer_compare.py [out.json].
It compiles its kernels first (about a minute with 16 cores). Both plan outside of what is timed.

S sequences, T query tokens, H query heads, K KV heads, D head width, B blocks, N tokens per block.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import flashinfer
import torch

from benchmarks.gpu.timing import graph_time_us
from octavo.ops.paged_plain import AttentionTerms
from octavo.ops.triton.paged_chunks import paged_chunks
from octavo.ops.triton.paged_decode import paged_decode
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace, decode_splits

K, D, N = 8, 128, 16
DTYPE, DEVICE = torch.bfloat16, torch.device("cuda")
TERMS = AttentionTerms(scale=1 / math.sqrt(D))
TOLERANCE = 1e-2
POOL_TOKENS = 8 * 8192 + 131072
WORKSPACE_BYTES = 512 << 20


class Case(NamedTuple):
    """`count` sequences that compute the last `queries` of `length` tokens."""

    name: str
    count: int
    queries: int
    length: int
    num_heads: int = 32


CASES = [
    Case("decode 1 x 256", 1, 1, 256),
    Case("decode 256 x 384", 256, 1, 384),
    Case("decode 32 x 4096", 32, 1, 4096),
    Case("decode 256 x 384, 16 heads", 256, 1, 384, 16),
    Case("chunks 16 x 128 to 2048", 16, 128, 2048),
    Case("chunk of 2048 to 8192", 1, 2048, 8192),
    Case("prefill 2 x 8192", 2, 8192, 8192),
]


class Step:
    """Made-up tensors of one step."""

    def __init__(self, pages: torch.Tensor, case: Case) -> None:
        count, each = case.count, case.length // N
        self.case, self.pages = case, pages
        self.blocks = torch.randperm(len(pages) - 1, device=DEVICE)[: count * each].int() + 1
        self.starts = torch.arange(count + 1, dtype=torch.int32, device=DEVICE) * case.queries
        self.q_THD = torch.randn(count * case.queries, case.num_heads, D, dtype=DTYPE, device=DEVICE)
        self.out_THD = torch.empty_like(self.q_THD)

    def ours(self) -> Callable[[], torch.Tensor]:
        case = self.case
        rows = torch.arange(case.count, dtype=torch.int32, device=DEVICE)
        lengths = torch.full((case.count,), case.length, dtype=torch.int32, device=DEVICE)
        singles = case.count if case.queries == 1 else 0
        counts = torch.tensor([singles, case.count, len(self.q_THD), 0], dtype=torch.int32, device=DEVICE)
        table_RM = self.blocks.view(case.count, -1)
        keys, values = self.pages[:, 0], self.pages[:, 1]
        workspace = DecodeWorkspace.allocate(
            max_seqs=case.count, num_heads=case.num_heads, num_kv_heads=K, head_dim=D, device=DEVICE
        )

        def decode() -> torch.Tensor:
            paged_decode(
                *(self.q_THD, keys, values, table_RM, rows, lengths, counts, self.out_THD, TERMS),
                num_seqs=case.count,
                num_splits=decode_splits(case.count, K, workspace.num_sms),
                workspace=workspace,
            )
            return self.out_THD

        def chunks() -> torch.Tensor:
            paged_chunks(
                *(
                    self.q_THD,
                    keys,
                    values,
                    table_RM,
                    rows,
                    self.starts,
                    lengths,
                    counts,
                    self.out_THD,
                    TERMS,
                ),
                max_tokens=len(self.q_THD),
                max_seqs=case.count,
            )
            return self.out_THD

        return decode if singles else chunks

    def theirs(self, backend: str) -> Callable[[], torch.Tensor]:
        case = self.case
        room = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=DEVICE)
        indptr = torch.arange(case.count + 1, dtype=torch.int32) * (case.length // N)
        last = torch.full((case.count,), N, dtype=torch.int32)
        sizes = (case.num_heads, K, D, N)
        types: dict[str, Any] = {"q_data_type": DTYPE, "kv_data_type": DTYPE}
        if case.queries == 1:
            decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
                room, "HND", use_tensor_cores=backend == "tensor cores"
            )
            decode.plan(indptr, self.blocks, last, *sizes, **types)
            return partial(decode.run, self.q_THD, self.pages)
        prefill = flashinfer.BatchPrefillWithPagedKVCacheWrapper(room, "HND", backend=backend)
        prefill.plan(self.starts.cpu(), indptr, self.blocks, last, *sizes, causal=True, **types)
        return partial(prefill.run, self.q_THD, self.pages)


def measure(pages: torch.Tensor, case: Case) -> dict[str, Any]:
    steps = [Step(pages, case) for _ in range(4)]
    found: dict[str, Any] = {"case": case.name, "octavo_us": graph_time_us([step.ours() for step in steps])}
    truth = steps[0].ours()().float()
    for backend in ("tensor cores", "CUDA cores") if case.queries == 1 else ("fa2", "fa3"):
        began = time.perf_counter()
        try:
            calls = [step.theirs(backend) for step in steps]
            error = float((calls[0]().float() - truth).norm() / truth.norm())
            ready_s = time.perf_counter() - began
            if not error < TOLERANCE:
                raise SystemExit(f"{case.name}, {backend}: {error:.1e} apart")
            found[f"{backend}_us"] = graph_time_us(calls)
            found[f"{backend}_ready_s"] = ready_s
        except Exception as error:
            found[f"{backend}_error"] = f"{type(error).__name__}: {error}"[:200]
    shown = "  ".join(
        f"{name} {value if isinstance(value, str) else round(value, 1)}" for name, value in found.items()
    )
    print(shown, flush=True)
    return found


def main() -> None:
    torch.manual_seed(0)
    pages = torch.randn(POOL_TOKENS // N, 2, K, N, D, dtype=DTYPE, device=DEVICE)
    results = [measure(pages, case) for case in CASES]
    if len(sys.argv) > 1:
        document = {
            "flashinfer": flashinfer.__version__,
            "gpu": torch.cuda.get_device_name(),
            "results": results,
        }
        Path(sys.argv[1]).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
