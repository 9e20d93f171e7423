"""Each op's CPU provider beside its plain form, in turns, at the default model's shapes.

python benchmarks/ops_cpu.py --out results.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from octavo.ops.table import OPS

HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP, BLOCK_SIZE = 576, 9, 3, 64, 1536, 16
CPU = torch.device("cpu")


def inputs(op: str, tokens: int) -> tuple[Any, ...]:
    if op == "gated_silu":
        return (torch.randn(tokens, 2 * MLP),)
    if op == "prepare_heads":
        return heads_inputs(tokens)
    weight = torch.randn(HIDDEN)
    if op == "rms_norm":
        return torch.randn(tokens, HIDDEN), weight, 1e-5
    assert op == "add_rms_norm", f"no inputs for {op}"
    return torch.randn(tokens, HIDDEN), torch.randn(tokens, HIDDEN), weight, 1e-5


def heads_inputs(tokens: int) -> tuple[Any, ...]:
    """As the CPU backend gives them: pages whose tokens hold all their heads side by side."""
    num_blocks = 1 + tokens // BLOCK_SIZE
    angles = torch.rand(2048, HEAD_DIM // 2) * 100
    pages = torch.randn(num_blocks, 2, BLOCK_SIZE, KV_HEADS, HEAD_DIM).transpose(2, 3)
    return (
        torch.randn(tokens, (HEADS + 2 * KV_HEADS) * HEAD_DIM),
        torch.arange(tokens, dtype=torch.int32),
        torch.randperm(num_blocks * BLOCK_SIZE, dtype=torch.int32)[:tokens],
        torch.cat((angles.cos(), angles.sin()), -1),
        None,
        None,
        1e-5,
        pages[:, 0],
        pages[:, 1],
        HEADS,
    )


def mean_us(run: Callable[..., object], arguments: tuple[Any, ...], calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        run(*arguments)
    return (time.perf_counter() - began) / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 32, 512])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    with torch.inference_mode():
        for name in OPS:
            op = OPS.load(name)
            if CPU.type not in op.providers:
                continue
            forms = {"plain": op.plain, "cpu": op.on(CPU)}
            for tokens in arguments.tokens:
                given, calls = inputs(name, tokens), max(20, 2000 // tokens)
                times: dict[str, list[float]] = {form: [] for form in forms}
                for _ in range(arguments.rounds):
                    for form, run in forms.items():
                        times[form].append(mean_us(run, given, calls))
                measured = {f"{form}_us": round(statistics.median(t), 1) for form, t in times.items()}
                rows.append({"op": name, "tokens": tokens, **measured})
                print(rows[-1])
    if arguments.out:
        record = {"torch": torch.__version__, "threads": torch.get_num_threads(), "results": rows}
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
