"""Where a decode step of Octavo goes: GPU work from torch's profiler, host time from wrapped calls.

A crowd of equal requests decodes. First some steps are timed with the host's calls wrapped, then some
are traced. Works the same whether steps run eagerly or as CUDA graphs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.limits import decode_step
from benchmarks.gpu.octavo_engine import OctavoEngine
from benchmarks.gpu.shapes import Shape
from benchmarks.gpu.trace import read_gpu_events, summarise
from benchmarks.gpu.workloads import same_length_requests

CASES = ((1, 128), (256, 256))
"""Batch size and prompt length: W2 and W5, each a little after its start."""

SETTLE_STEPS, HOST_STEPS, TRACED_STEPS = 8, 40, 20


def profile(engine: OctavoEngine, shape: Shape) -> dict[str, Any]:
    """Every case, printed and returned."""
    found = {}
    for batch, input_len in CASES:
        case = profile_decode(engine, shape, batch, input_len)
        print(report(f"{shape.name} batch {batch}", case), flush=True)
        found[f"batch{batch}"] = case
    return found


def profile_decode(engine: OctavoEngine, shape: Shape, batch: int, input_len: int) -> dict[str, Any]:
    """One crowd: host times and trace per step, and the limit at its context."""
    settle = SETTLE_STEPS + batch  # prompts may enter over several steps
    steps = HOST_STEPS + 2 * TRACED_STEPS
    engine.reset_cache()
    engine.submit(same_length_requests(batch, input_len, settle + steps, shape.vocab_size))
    try:
        context = input_len + decode_until_full(engine, batch, settle)
        host = _host_times(engine)
        gpu = _trace(engine) if torch.cuda.is_available() else None
    finally:
        engine.drop()
    limit = decode_step(shape, batch, context + HOST_STEPS + TRACED_STEPS / 2).seconds * 1e6
    return {"batch": batch, "limit_us": limit, "host": host, "gpu": gpu}


def report(title: str, case: dict[str, Any]) -> str:
    """The case in few lines."""
    host, gpu, limit = case["host"], case["gpu"], case["limit_us"]
    calls = ", ".join(f"{name} {us:.0f}" for name, us in host["us_per_step"].items())
    lines = [
        f"== {title}: {host['step_us_median']:.0f} us a step, limit {limit:.0f} us",
        f"   host, mean us: {calls}",
    ]
    if gpu is not None and "top" in gpu:
        span, busy = gpu["span_us_per_step"], gpu["busy_us_per_step"]
        lines += [
            f"   GPU: span {span:.0f} us, busy {busy:.0f} us; limit/span {limit / span:.0%}, "
            f"limit/busy {limit / busy:.0%}",
            f"   {gpu['kernels_per_step']:.1f} kernels, median gap {gpu['median_gap_us']:.2f} us, "
            f"{gpu['gaps_over_5us_per_step']:.1f} gaps over 5 us",
        ]
        lines += [
            f"   {row['us_per_step']:9.1f} us {row['per_step']:6.1f} x "
            f"{row['us_per_step'] / row['per_step']:8.2f}  {row['name']}"
            for row in gpu["top"]
        ]
        lines.append(f"   {gpu['rest_us_per_step']:9.1f} us all others")
    return "\n".join(lines)


class HostTimes:
    """Sums the time spent in calls of the core while active. Nested calls count in both."""

    def __init__(self, engine: OctavoEngine) -> None:
        core = engine.llm._core
        self._calls: dict[str, tuple[object, str]] = {
            "core step": (core, "step"),
            "schedule": (getattr(core, "_scheduler", None), "schedule"),
            "submit": (getattr(core, "executor", None), "submit"),
            "collect": (getattr(core, "executor", None), "collect"),
        }
        self._wrapped: list[tuple[object, str]] = []
        self.seconds: dict[str, float] = defaultdict(float)

    def __enter__(self) -> HostTimes:
        for label, (owner, name) in self._calls.items():
            if hasattr(owner, "__dict__"):  # what takes no wrapper stays in the rest
                setattr(owner, name, self._timed(label, getattr(owner, name)))
                self._wrapped.append((owner, name))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name in self._wrapped:
            delattr(owner, name)  # the class's own method shows again

    def _timed(self, label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*values: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*values, **named)
            finally:
                self.seconds[label] += time.perf_counter() - began

        return timed


def decode_until_full(engine: OctavoEngine, batch: int, most: int) -> int:
    """Step until every request has a token and the pace is steady. Tokens that the first one has."""
    started: set[int] = set()
    settled = mine = 0
    while settled < SETTLE_STEPS:
        for number, count in engine.step():
            started.add(number)
            mine += count if number == 0 else 0
        settled += len(started) == batch
        if mine > most:
            raise RuntimeError(f"only {len(started)} of {batch} requests run together; raise max_num_seqs")
    return mine


def _host_times(engine: OctavoEngine) -> dict[str, Any]:
    """Median wall per step, and means of what the core's calls took. `rest` is text and bookkeeping."""
    walls = []
    with HostTimes(engine) as host:
        for _ in range(HOST_STEPS):
            began = time.perf_counter()
            engine.step()
            walls.append(time.perf_counter() - began)
    mean = {label: seconds / HOST_STEPS * 1e6 for label, seconds in host.seconds.items()}
    step = mean.pop("core step", 0.0)
    mean["core's rest"] = step - sum(mean.values())
    mean["outside core"] = statistics.mean(walls) * 1e6 - step
    return {"step_us_median": statistics.median(walls) * 1e6, "us_per_step": mean}


def _trace(engine: OctavoEngine) -> dict[str, Any]:
    """Trace twice, keep the second: the first pays for the profiler's own start."""
    found = {}
    for _ in range(2):
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            for _ in range(TRACED_STEPS):
                engine.step()
            torch.cuda.synchronize()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            profiler.export_chrome_trace(str(path))
            found = summarise(read_gpu_events(path), TRACED_STEPS)
    return found
