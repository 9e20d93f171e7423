"""Core time of one step, schedule and update apart: N decoding requests, an executor that does nothing.

python benchmarks/core_step.py --out results.json
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections import deque
from pathlib import Path

from octavo.config.cache import CacheConfig
from octavo.config.schedule import ScheduleConfig
from octavo.core.kv.plan import plan_kv
from octavo.core.loop import EngineCore
from octavo.executor.fake import FULL, sliding
from octavo.messages.kv import KVPlan
from octavo.messages.params import SamplingParams
from octavo.messages.request import EngineRequest
from octavo.messages.result import StepOutput
from octavo.messages.start import WorkerFacts
from octavo.messages.step import SchedulerOutput

LAYERS = {"full": [FULL, FULL], "mixed": [FULL, sliding(128), sliding(128), sliding(128)]}
NUM_PROMPT = 64


class InstantExecutor:
    """Answers every row with token 1 and notes when it was called. All rows decode, so all sample."""

    def __init__(self) -> None:
        self.submitted_at = 0.0
        self.answered_at = 0.0
        self._submitted: deque[SchedulerOutput] = deque()

    def start(self) -> WorkerFacts:
        return WorkerFacts(
            kv_layers=[FULL], vocab_size=2, hidden_size=1, available_bytes=0, memory_bytes={}, seconds={}
        )

    def allocate(self, plan: KVPlan) -> dict[str, float]:  # noqa: ARG002
        """There is no memory behind this."""
        return {}

    def submit(self, step: SchedulerOutput) -> None:
        self.submitted_at = time.perf_counter()
        self._submitted.append(step)

    def collect(self) -> StepOutput:
        step = self._submitted.popleft()
        output = StepOutput(step=step.step, rows=step.rows.copy(), token_ids=[1] * len(step.rows))
        self.answered_at = time.perf_counter()
        return output

    def shutdown(self) -> None:
        """Nothing to free."""


def measure(num_requests: int, layers: str, steps: int, spread: int) -> dict[str, float | int | str]:
    """Run `steps` decode steps with all requests running; times in microseconds.

    Prompt lengths go through `spread` values. With 1, all requests fill a block, and name it, in the same
    step: the worst case. With the block size, every step has as many as the next, as in real life.
    """
    max_len = NUM_PROMPT + spread + steps + 8
    executor = InstantExecutor()
    specs = LAYERS[layers]
    groups = 1 if layers == "full" else 4
    plan = plan_kv(
        specs,
        block_size=16,
        num_blocks=2 + (num_requests + 1) * groups * (max_len // 16 + 2),
        available_bytes=0,
        useful_tokens=0,
    )
    core = EngineCore(
        schedule=ScheduleConfig(
            max_num_seqs=num_requests, max_num_batched_tokens=(NUM_PROMPT + spread) * num_requests
        ),
        cache=CacheConfig(block_size=16, enable_prefix_caching=True),
        max_model_len=max_len,
        plan=plan,
        executor=executor,
    )
    for number in range(num_requests):
        core.add(
            EngineRequest(
                request_id=f"request-{number}",
                prompt_token_ids=[number] * (NUM_PROMPT + number % spread),
                params=SamplingParams(max_tokens=steps + 4),
                max_tokens=steps + 4,
                eos_token_ids=[0],
                random_key=number,
                arrival_time=0.0,
            )
        )
    core.step()
    assert core.stats().num_running == num_requests, "all requests decode from the second step on"
    schedule_us, update_us = [], []
    for _ in range(steps):
        began = time.perf_counter()
        core.step()
        ended = time.perf_counter()
        schedule_us.append((executor.submitted_at - began) * 1e6)
        update_us.append((ended - executor.answered_at) * 1e6)
    total_us = [a + b for a, b in zip(schedule_us, update_us, strict=True)]
    result: dict[str, float | int | str] = {
        "requests": num_requests,
        "layers": layers,
        "steps": steps,
        "spread": spread,
    }
    for name, values in (("schedule", schedule_us), ("update", update_us), ("total", total_us)):
        result[f"{name}_mean_us"] = round(statistics.fmean(values), 1)
        result[f"{name}_p50_us"] = round(statistics.median(values), 1)
        result[f"{name}_p99_us"] = round(statistics.quantiles(values, n=100)[98], 1)
        result[f"{name}_min_us"] = round(min(values), 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Core time of one step, without an executor.")
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 64, 256, 1024])
    parser.add_argument("--layers", choices=sorted(LAYERS), nargs="+", default=["full", "mixed"])
    parser.add_argument("--steps", type=int, default=500, help="Decode steps to time for each line.")
    parser.add_argument(
        "--spread", type=int, default=16, help="Different prompt lengths; 1 is the worst case."
    )
    parser.add_argument("--out", type=Path, help="Write the numbers as JSON to this file.")
    arguments = parser.parse_args()
    print(f"{'layers':8}{'requests':>9} | {'schedule p50':>13}{'p99':>8} | {'update p50':>11}{'p99':>8} | "
          f"{'step p50':>9}{'p99':>8}{'min':>8}   microseconds")  # fmt: skip
    results = []
    for layers in arguments.layers:
        for num_requests in arguments.requests:
            gc.collect()
            line = measure(num_requests, layers, arguments.steps, arguments.spread)
            results.append(line)
            print(f"{layers:8}{num_requests:>9} | "
                  f"{line['schedule_p50_us']:>13}{line['schedule_p99_us']:>8} | "
                  f"{line['update_p50_us']:>11}{line['update_p99_us']:>8} | {line['total_p50_us']:>9}"
                  f"{line['total_p99_us']:>8}{line['total_min_us']:>8}")  # fmt: skip
    if arguments.out is not None:
        record = {
            "benchmark": "core_step",
            "python": sys.version.split()[0],
            "machine": platform.machine(),
            "results": results,
        }
        arguments.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
