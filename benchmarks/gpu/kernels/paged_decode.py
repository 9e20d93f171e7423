"""Decode attention over paged KV: tiles, warps, stages and splits at the models' shapes.

Run on a GPU: PYTHONPATH=. python3 benchmarks/gpu/kernels/paged_decode.py. Results are checked first, on fresh
random data, against float32. The last line is JSON: the best choice of every case.

S sequences, T query tokens, H query heads, K KV heads, D head width, B blocks, N tokens per block.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.timing import graph_time_us
from octavo.ops.paged_plain import AttentionTerms, paged_attention
from octavo.ops.triton.paged_decode import paged_decode
from octavo.ops.triton.paged_decode_shared import paged_decode_shared
from octavo.ops.triton.paged_decode_workspace import DecodeWorkspace, Tuning, decode_splits

COPY_RATE = 3.0  # TB/s of a large copy on an H100
K, D, N = 8, 128, 16
TOKEN_BYTES = 2 * K * D * 2
POOL_BLOCKS = 14336  # 940 MB: room for 32 sequences of 4096 tokens, or for 256 of 384 more than twice
SHARED_TOKENS, OWN_TOKENS = 2048, 96
DTYPE = torch.bfloat16
TERMS = AttentionTerms(scale=1 / math.sqrt(D))
TOLERANCE = 6e-3
DEVICE = torch.device("cuda")


def tuning(tile: int, num_warps: int, num_stages: int) -> Tuning:
    return Tuning(tile=tile, num_warps=num_warps, num_stages=num_stages)


TUNINGS = [
    tuning(32, 4, 4),
    tuning(32, 2, 4),
    tuning(64, 4, 3),
    tuning(16, 2, 5),
    tuning(32, 4, 3),
    tuning(64, 4, 2),
    tuning(128, 8, 2),
]
SHARED_TUNINGS = [(64, tuning(64, 4, 3)), (64, tuning(128, 4, 2)), (128, tuning(64, 8, 3))]
"""With the queries of a tile."""


class Case(NamedTuple):
    name: str
    num_seqs: int
    context: int
    num_heads: int
    splits: tuple[int, ...] = ()
    """To try beside the default."""
    num_tunings: int = 4
    """The first so many are tried."""


CASES = [
    Case("llama8b 256 x 384", 256, 384, 32, num_tunings=7),
    Case("qwen0.6b 256 x 384", 256, 384, 16),
    Case("llama8b 32 x 4096", 32, 4096, 32, (1, 2, 4, 8), 7),
    Case("llama8b 64 x 512", 64, 512, 32, (1, 4)),
    Case("llama8b 1 x 256", 1, 256, 32, (1, 4)),
    Case("qwen0.6b 1 x 256", 1, 256, 16, (1, 4)),
    Case("llama8b 1 x 8192", 1, 8192, 32, (16, 32)),
]


class Step:
    """Made-up tensors of one decode step; several steps read different blocks of one pool."""

    def __init__(self, pages: torch.Tensor, blocks_SM: torch.Tensor, length: int, num_heads: int) -> None:
        num_seqs = len(blocks_SM)
        self.num_seqs = num_seqs
        self.keys_BKND, self.values_BKND = pages[:, 0], pages[:, 1]
        self.table_RM = blocks_SM.int()
        self.rows_S = torch.arange(num_seqs, dtype=torch.int32, device=DEVICE)
        self.lengths_S = torch.full((num_seqs,), length, dtype=torch.int32, device=DEVICE)
        self.counts = torch.tensor([num_seqs, num_seqs, num_seqs, 0], dtype=torch.int32, device=DEVICE)
        self.q_THD = torch.randn(num_seqs, num_heads, D, dtype=DTYPE, device=DEVICE)
        self.out_THD = torch.full_like(self.q_THD, float("nan"))

    def tensors(self) -> tuple[Any, ...]:
        pages = (self.q_THD, self.keys_BKND, self.values_BKND, self.table_RM)
        return (*pages, self.rows_S, self.lengths_S, self.counts, self.out_THD, TERMS)

    def error(self, call: Callable[[], object]) -> float:
        self.out_THD.fill_(float("nan"))
        call()
        starts = list(range(self.num_seqs + 1))
        expected_THD = paged_attention(
            self.q_THD.float(),
            self.keys_BKND,
            self.values_BKND,
            self.table_RM,
            starts,
            self.lengths_S.tolist(),
            TERMS,
        )
        return float((self.out_THD.float() - expected_THD).norm() / expected_THD.norm())


class Choice(NamedTuple):
    us: float
    what: dict[str, Any]

    def or_faster(self, other: Choice) -> Choice:
        return other if other.us < self.us else self


def workspace_for(
    num_seqs: int, num_heads: int, num_splits: int | None, with_shared: bool
) -> DecodeWorkspace:
    return DecodeWorkspace.allocate(
        max_seqs=num_seqs,
        num_heads=num_heads,
        num_kv_heads=K,
        head_dim=D,
        device=DEVICE,
        num_splits=num_splits,
        with_shared=with_shared,
    )


def time_checked(steps: Sequence[Step], call: Callable[[Step], object], label: str) -> float:
    error = steps[0].error(lambda: call(steps[0]))
    if not error < TOLERANCE:
        raise SystemExit(f"{label}: off by {error:.1e}")
    repeats = max(1, 8 // len(steps))
    return graph_time_us([partial(call, step) for step in steps] * repeats)


def decode_case(pages: torch.Tensor, case: Case) -> Choice:
    used = case.num_seqs * case.context // N
    copies = min(128, (POOL_BLOCKS - 1) // used)
    ids = 1 + torch.randperm(POOL_BLOCKS - 1, device=DEVICE)[: copies * used]
    tables = ids.view(copies, case.num_seqs, -1)
    steps = [Step(pages, table, case.context, case.num_heads) for table in tables]
    num_bytes = case.num_seqs * case.context * TOKEN_BYTES
    print(
        f"\n{case.name}: {num_bytes / 1e6:.1f} MB, {num_bytes / COPY_RATE / 1e6:.1f} us at {COPY_RATE} TB/s"
    )
    sdpa_us = graph_time_us([partial(sdpa, step) for step in gathered(steps)])
    print(f"  SDPA, not paged {'':18} {sdpa_us:8.1f} us")
    if importlib.util.find_spec("flash_attn") is not None:
        print(f"  flash-attn-4 and a copy {'':10} {time_checked(steps, flash, 'flash'):8.1f} us")
    default_splits = decode_splits(case.num_seqs, K, workspace_for(1, 1, 1, False).num_sms)
    best = Choice(math.inf, {})
    for choice in TUNINGS[: case.num_tunings]:
        best = best.or_faster(one_decode(steps, num_bytes, choice, default_splits, 64))
    for num_splits in case.splits:
        best = best.or_faster(one_decode(steps, num_bytes, Tuning(**best.what["tuning"]), num_splits, 64))
    if best.what["num_splits"] > 1:
        for split_tokens in (128, 256):
            chosen = Tuning(**best.what["tuning"])
            best = best.or_faster(one_decode(steps, num_bytes, chosen, best.what["num_splits"], split_tokens))
    return best


def one_decode(
    steps: Sequence[Step], num_bytes: int, choice: Tuning, num_splits: int, split_tokens: int
) -> Choice:
    first = steps[0]
    workspace = workspace_for(first.num_seqs, first.q_THD.shape[1], num_splits, False)

    def call(step: Step) -> None:
        paged_decode(
            *step.tensors(),
            num_seqs=step.num_seqs,
            workspace=workspace,
            num_splits=num_splits,
            split_tokens=split_tokens,
            tuning=choice,
        )

    label = f"tile {choice.tile:3} warps {choice.num_warps} stages {choice.num_stages} splits {num_splits:2}"
    us = time_checked(steps, call, label)
    rate = num_bytes / us / 1e6
    print(f"  {label} of {split_tokens:3}+ {us:8.1f} us {rate:5.2f} TB/s {rate / COPY_RATE:4.0%}", flush=True)
    what = {"tuning": vars(choice), "num_splits": num_splits, "split_tokens": split_tokens}
    return Choice(us, what)


def gathered(steps: Sequence[Step]) -> list[tuple[torch.Tensor, ...]]:
    """Contiguous keys and values of the first steps."""
    found = []
    for step in steps[:2]:
        blocks = step.table_RM.long()
        k, v = (pages[blocks].transpose(1, 2).flatten(2, 3) for pages in (step.keys_BKND, step.values_BKND))
        found.append((step.q_THD[:, :, None], k, v))
    return found


def flash(step: Step) -> None:
    """flash-attn-4 on the same pages, if it is installed."""
    from flash_attn.cute import flash_attn_varlen_func

    found = flash_attn_varlen_func(
        step.q_THD,
        step.keys_BKND.transpose(1, 2),
        step.values_BKND.transpose(1, 2),
        cu_seqlens_q=torch.arange(step.num_seqs + 1, dtype=torch.int32, device=DEVICE),
        seqused_k=step.lengths_S,
        page_table=step.table_RM,
        max_seqlen_q=1,
        max_seqlen_k=int(step.table_RM.shape[1]) * N,
        softmax_scale=TERMS.scale,
        causal=True,
    )
    step.out_THD.copy_(found[0] if isinstance(found, tuple) else found)


def sdpa(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(*tensors, scale=TERMS.scale, enable_gqa=True)


def shared_case(pages: torch.Tensor, num_heads: int, num_seqs: int) -> Choice:
    """W4: sequences that share their first blocks, with the shared form and without."""
    length = SHARED_TOKENS + OWN_TOKENS
    shared, own = SHARED_TOKENS // N, OWN_TOKENS // N
    steps = []
    for _ in range(2):
        ids = 1 + torch.randperm(POOL_BLOCKS - 1, device=DEVICE)[: shared + num_seqs * own]
        table_SM = torch.cat((ids[:shared].expand(num_seqs, -1), ids[shared:].view(num_seqs, own)), 1)
        steps.append(Step(pages, table_SM, length, num_heads))
    print(f"\nW4 {num_seqs} x ({SHARED_TOKENS} shared + {OWN_TOKENS}), {num_heads} heads")
    workspace = workspace_for(num_seqs, num_heads, None, True)

    def plain(step: Step) -> None:
        paged_decode(*step.tensors(), num_seqs=num_seqs, workspace=workspace)

    print(f"  read by every sequence {time_checked(steps, plain, 'plain'):30.1f} us")
    best = Choice(math.inf, {})
    for tile_rows, choice in SHARED_TUNINGS:
        for splits in (1, 2, 4):

            def call(
                step: Step, tile_rows: int = tile_rows, choice: Tuning = choice, splits: int = splits
            ) -> None:
                paged_decode_shared(
                    *step.tensors(),
                    num_seqs=num_seqs,
                    workspace=workspace,
                    num_shared_splits=splits,
                    tuning=choice,
                    tile_rows=tile_rows,
                )

            label = f"rows {tile_rows:3} tile {choice.tile:3} warps {choice.num_warps} splits {splits}"
            set_shared(steps, 0)
            none_us = time_checked(steps, call, label)
            set_shared(steps, shared)
            us = time_checked(steps, call, label)
            print(f"  {label} {us:18.1f} us; told that nothing is shared {none_us:8.1f} us", flush=True)
            best = best.or_faster(
                Choice(us, {"tile_rows": tile_rows, "tuning": vars(choice), "splits": splits})
            )
    return best


def set_shared(steps: Sequence[Step], num_blocks: int) -> None:
    for step in steps:
        step.counts[3] = num_blocks


def main() -> None:
    torch.manual_seed(0)
    pages = torch.empty(POOL_BLOCKS, 2, K, N, D, dtype=DTYPE, device=DEVICE).normal_()
    pages[0] = float("nan")
    best = {case.name: decode_case(pages, case) for case in CASES}
    for num_heads in (32, 16):
        best[f"W4 256, {num_heads} heads"] = shared_case(pages, num_heads, 256)
    print()
    print(json.dumps({name: {"us": round(choice.us, 2), **choice.what} for name, choice in best.items()}))


if __name__ == "__main__":
    main()
