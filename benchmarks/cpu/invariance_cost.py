"""What batch invariance costs: float32 and bfloat16 weights in native kernels beside torch's products.

    python benchmarks/cpu/invariance_cost.py [--threads 1] [--rounds 3] [--out results.json]

The default model with `--dtype float32`, its weights made plain; in torch as Octavo computes without native
kernels, where numbers depend on the batch in their last bits. Every run is a process of its own, turn by
turn; medians. Wall time counts what a user waits for, CPU time what a busy machine leaves comparable.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STREAMS = (1, 8, 32)
PROMPT, ANSWER, LONG_PROMPT = 16, 32, 512
VARIANTS: dict[str, dict[str, Any]] = {
    "torch, float32": {"dtype": "float32", "native_kernels": False},
    "native, float32": {"dtype": "float32"},
    "native, bfloat16": {"dtype": "bfloat16"},
    "native, packed": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=list(VARIANTS), help="(of a run's own process)")
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(measure(VARIANTS[options.one], options.threads)) + "\n")
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in VARIANTS}
    for _ in range(options.rounds):
        for name in VARIANTS:
            command = [sys.executable, __file__, "--one", name, "--threads", str(options.threads)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(json.loads(output.splitlines()[-1]))
    medians = {name: median_of(runs) for name, runs in found.items()}
    for name, numbers in medians.items():
        print(name, numbers)
    if options.out:
        record = {"threads": options.threads, "rounds": options.rounds, "medians": medians, "runs": found}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def measure(variant: dict[str, Any], threads: int) -> dict[str, float]:
    """Tokens a second by the wall and milliseconds of CPU a token: by streams, and of prompts."""
    import torch

    from octavo import LLM, SamplingParams

    torch.set_num_threads(threads)
    source = random.Random(5)
    found: dict[str, float] = {}

    def prompts(count: int, length: int) -> list[list[int]]:
        return [[source.randrange(40_000) for _ in range(length)] for _ in range(count)]

    with LLM(
        cpu_threads=threads,
        max_model_len=1024,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
        **variant,
    ) as llm:

        def run(name: str, count: int, length: int, answer: int, num_tokens: int) -> None:
            params = SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True)
            llm.generate(prompts(count, length), params, use_tqdm=False)
            asked = prompts(count, length)
            began, cpu = time.perf_counter(), time.process_time()
            llm.generate(asked, params, use_tqdm=False)
            found[f"{name}, tok/s"] = round(num_tokens / (time.perf_counter() - began), 1)
            found[f"{name}, CPU ms"] = round(1e3 * (time.process_time() - cpu) / num_tokens, 3)

        for count in STREAMS:
            run(f"{count} streams", count, PROMPT, ANSWER, count * ANSWER)
        run(f"prompts of {LONG_PROMPT}", 4, LONG_PROMPT, 1, 4 * LONG_PROMPT)
    return found


def median_of(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


if __name__ == "__main__":
    main()
