"""What batch invariance costs: float32 and bfloat16 weights in native kernels beside torch's products.

    python benchmarks/cpu/invariance_cost.py [--rounds 3] [--out results.json]

The default model with `--dtype float32`, its weights made plain; in torch as Octavo computes without native
kernels, where numbers depend on the batch in their last bits. One thread each; all engines in one process, in
turns; medians. CPU time is what a busy machine leaves comparable, so that is what is counted.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from octavo import LLM, SamplingParams

STREAMS = (1, 8, 32)
PROMPT, ANSWER, LONG_PROMPT = 16, 24, 512
VARIANTS: dict[str, dict[str, Any]] = {
    "torch, float32": {"dtype": "float32", "native_kernels": False},
    "native, float32": {"dtype": "float32"},
    "native, bfloat16": {"dtype": "bfloat16"},
    "native, packed": {},
}
COMMON: dict[str, Any] = {
    "cpu_threads": 1,
    "max_model_len": 1024,
    "enable_prefix_caching": False,
    "skip_tokenizer_init": True,
    "num_gpu_blocks_override": 256,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        engines = {name: stack.enter_context(LLM(**COMMON, **variant)) for name, variant in VARIANTS.items()}
        rounds = []
        for turn in range(options.rounds + 1):
            found = {name: measure(llm, random.Random(turn)) for name, llm in engines.items()}
            print(found, flush=True)
            rounds.append(found)
    warm = rounds[1:]
    medians = {
        name: {what: statistics.median(found[name][what] for found in warm) for what in warm[0][name]}
        for name in VARIANTS
    }
    print(medians)
    if options.out:
        record = {"unit": "ms of CPU a token", "threads": 1, "medians": medians, "rounds": warm}
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def measure(llm: LLM, source: random.Random) -> dict[str, float]:
    """Milliseconds of CPU for an answer's token, by the number of streams, and for a prompt's."""

    def cpu_ms(count: int, length: int, answer: int) -> float:
        prompts = [[source.randrange(40_000) for _ in range(length)] for _ in range(count)]
        params = SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True)
        began = time.process_time()
        llm.generate(prompts, params, use_tqdm=False)
        return 1e3 * (time.process_time() - began)

    found = {}
    for count in STREAMS:
        found[f"{count} streams"] = round(cpu_ms(count, PROMPT, ANSWER) / (count * ANSWER), 3)
    found[f"prompt of {LONG_PROMPT}"] = round(cpu_ms(1, LONG_PROMPT, 1) / LONG_PROMPT, 3)
    return found


if __name__ == "__main__":
    main()
