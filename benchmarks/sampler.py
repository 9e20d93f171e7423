"""Times one sampling step at several batch sizes and settings, beside torch.argmax; JSON on stdout.

Logits fall off like a language model's (a few likely tokens, a long tail), or flat with --flat, the
worst case of top_p. Run: python benchmarks/sampler.py --threads 1 --out result.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from octavo.messages.params import SamplingParams
from octavo.worker.sampling.sampler import Sampler

SETTINGS: dict[str, SamplingParams] = {
    "greedy": SamplingParams(temperature=0.0),
    "temperature": SamplingParams(temperature=0.8),
    "top_p": SamplingParams(temperature=0.8, top_p=0.95),
    "top_k_top_p": SamplingParams(temperature=0.8, top_p=0.95, top_k=50),
    "penalties": SamplingParams(
        temperature=0.0, repetition_penalty=1.1, presence_penalty=0.5, frequency_penalty=0.5
    ),
    "logprobs": SamplingParams(temperature=0.0, logprobs=5),
}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The token table as the sampler reads it."""

    tokens: torch.Tensor
    num_known: NDArray[np.int32]
    num_prompt: NDArray[np.int32]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    results = []
    for num_rows in options.batch:
        logits = _logits(num_rows, options.vocab, options.flat)
        rows = _rows(num_rows, options.vocab, options.history)
        argmax_us = _median_us(partial(torch.argmax, logits, dim=-1), options)
        line: dict[str, float] = {"rows": num_rows, "torch_argmax_us": argmax_us}
        for name, params in SETTINGS.items():
            sampler = Sampler(num_rows=num_rows, vocab_size=options.vocab, device=torch.device("cpu"))
            for row in range(num_rows):
                sampler.add_row(row, params, row, [0], rows.tokens[row].tolist(), options.history // 2)
            step = partial(_step, sampler, logits, range(num_rows), rows)
            line[f"{name}_us"] = _median_us(step, options)
        results.append(line)
    report = {
        "benchmark": "sampler",
        "torch": torch.__version__,
        "clock": options.clock,
        "threads": options.threads,
        "vocab": options.vocab,
        "history": options.history,
        "flat": options.flat,
        "results": results,
    }
    text = json.dumps(report, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--history", type=int, default=512, help="known tokens per row")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--flat", action="store_true", help="standard normal logits")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: fair where others use the machine"
    )
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _logits(num_rows: int, vocab: int, flat: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if flat:
        return torch.randn(num_rows, vocab, generator=generator)
    falling = -1.6 * torch.arange(1, vocab + 1).log()
    order = torch.stack([torch.randperm(vocab, generator=generator) for _ in range(num_rows)])
    return falling[order] + 0.3 * torch.randn(num_rows, vocab, generator=generator)


def _rows(num_rows: int, vocab: int, history: int) -> Rows:
    generator = torch.Generator().manual_seed(1)
    return Rows(
        tokens=torch.randint(vocab, (num_rows, history), generator=generator, dtype=torch.int32),
        num_known=np.full(num_rows, history, dtype=np.int32),
        num_prompt=np.full(num_rows, history // 2, dtype=np.int32),
    )


def _step(sampler: Sampler, logits: torch.Tensor, numbers: range, rows: Rows) -> object:
    return sampler.sample(logits, numbers, rows).finish()


def _median_us(step: Callable[[], object], options: argparse.Namespace) -> float:
    clock = CLOCKS[options.clock]
    step()
    times = []
    for _ in range(options.repeats):
        start = clock()
        step()
        times.append(clock() - start)
    return round(statistics.median(times) * 1e6, 1)


if __name__ == "__main__":
    main()
