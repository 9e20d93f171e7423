"""Decode of a model with experts through the whole engine, beside what its memory allows.

    python -m benchmarks.gpu.moe_models [--shape qwen3-30b-a3b] [--out moe.json]

First the machine's copy rate and the experts op alone, then the model with random weights: milliseconds of
a decode step at batch 1 and 256, medians. The limit counts the weights that such a step reads: all but the
experts, and those experts that the step's tokens chose, counted in eager steps of the same crowd afterwards
(the counting would disturb the graphs); and the keys and values.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu.limits import COPY_BYTES_PER_S
from benchmarks.gpu.moe_shapes import MOE_SHAPES, QWEN3_30B_A3B, expert_sizes
from benchmarks.gpu.octavo_engine import OctavoEngine, load_dummy
from benchmarks.gpu.profile_steps import SETTLE_STEPS, decode_until_full
from benchmarks.gpu.results import ResultFile
from benchmarks.gpu.shapes import Shape, write_model
from benchmarks.gpu.workloads import same_length_requests
from octavo.layers.experts import Experts
from octavo.worker.graphs import StepGraphs

BATCHES = (1, 256)
PROMPT_TOKENS = 64
TIMED_STEPS, COUNTED_STEPS = 64, 4
OPTIONS = {"max_num_seqs": 256, "max_model_len": 1024}


def copy_bytes_per_s(num_bytes: int = 2 * 2**30) -> float:
    """Reading and writing, as a large copy does."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * num_bytes / statistics.median(times)


class Bytes:
    """What a decode step reads of a model's weights."""

    def __init__(self, engine: OctavoEngine) -> None:
        model: Any = engine.llm._core.executor._worker._held.model
        self.mixtures = [module for module in model.modules() if isinstance(module, Experts)]
        all_of_them = sum(self._of_expert(each) * len(each.gate_up_XGE) for each in self.mixtures)
        looked_up = getattr(model.embedding, "weight_VE", None)  # a tied one is the head, too
        self.rest = sum(each.nbytes for each in model.parameters()) - all_of_them
        self.rest -= 0 if looked_up is None else looked_up.nbytes
        self.total = self.rest + all_of_them
        self.kv_per_token = sum(spec.bytes_per_token for spec in model.kv_layers())

    def of_step(self, touched: float, batch: int, context: float) -> float:
        """touched: experts of a layer that a token chose, on average over the layers."""
        chosen = sum(touched * self._of_expert(each) for each in self.mixtures)
        return self.rest + chosen + batch * context * self.kv_per_token

    @staticmethod
    def _of_expert(experts: Experts) -> int:
        return experts.gate_up_XGE[0].nbytes + experts.down_XEF[0].nbytes


def decode(engine: OctavoEngine, read: Bytes, shape: Shape, batch: int, copy_rate: float) -> dict[str, Any]:
    """A crowd of equal requests: medians of its steps, then the experts that eager steps of it touch."""
    steps = 2 * SETTLE_STEPS + batch + TIMED_STEPS + COUNTED_STEPS
    engine.reset_cache()
    engine.submit(same_length_requests(batch, PROMPT_TOKENS, steps, shape.vocab_size))
    try:
        done = decode_until_full(engine, batch, SETTLE_STEPS + batch)
        walls = []
        for _ in range(TIMED_STEPS):
            began = time.perf_counter()
            engine.step()
            walls.append(time.perf_counter() - began)
        with without_graphs(), counting(read.mixtures) as touched:
            for _ in range(COUNTED_STEPS):
                engine.step()
    finally:
        engine.drop()
    context = PROMPT_TOKENS + done + TIMED_STEPS / 2
    mean = statistics.mean(touched)
    num_bytes = read.of_step(mean, batch, context)
    ms, limit_ms = statistics.median(walls) * 1e3, num_bytes / copy_rate * 1e3
    return {
        "batch": batch,
        "ms_per_step": ms,
        "ms_per_step_p90": sorted(walls)[int(0.9 * len(walls))] * 1e3,
        "experts_touched_per_layer": mean,
        "bytes": num_bytes,
        "limit_ms": limit_ms,
        "of_limit": limit_ms / ms,
        "tokens_per_s": batch / ms * 1e3,
    }


@contextmanager
def without_graphs() -> Iterator[None]:
    """Steps run eagerly meanwhile."""
    with mock.patch.object(StepGraphs, "run", return_value=None):
        yield


@contextmanager
def counting(mixtures: Sequence[Experts]) -> Iterator[list[int]]:
    """Distinct experts of every layer of every step meanwhile."""
    touched: list[int] = []
    calls: dict[int, int] = defaultdict(int)

    def counted(experts: Experts) -> Any:
        forward = experts.forward

        def count(x_TE: torch.Tensor, experts_TK: torch.Tensor, *more: Any) -> torch.Tensor:
            touched.append(len(experts_TK.unique()))
            calls[id(experts)] += 1
            return forward(x_TE, experts_TK, *more)

        return count

    for each in mixtures:
        each.forward = counted(each)  # type: ignore[method-assign]
    try:
        yield touched
    finally:
        for each in mixtures:
            del each.forward  # the class's own shows again
    assert set(calls) == {id(each) for each in mixtures}, "every layer was seen"


def measure(engine: OctavoEngine, shape: Shape, copy_rate: float, batches: Sequence[int]) -> dict[str, Any]:
    """All batches, printed and returned."""
    read = Bytes(engine)
    found: dict[str, Any] = {"weight_bytes": read.total, "seconds_to_start": engine.llm.ready.seconds}
    for batch in batches:
        case = found[f"batch{batch}"] = decode(engine, read, shape, batch, copy_rate)
        print(
            f"{shape.name} batch {batch}: {case['ms_per_step']:.2f} ms a step, "
            f"{case['experts_touched_per_layer']:.1f} experts a layer, {case['bytes'] / 1e9:.2f} GB, limit "
            f"{case['limit_ms']:.2f} ms ({case['of_limit']:.2f})",
            flush=True,
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=MOE_SHAPES, default=QWEN3_30B_A3B.name)
    parser.add_argument("--out", type=Path, default=Path("moe.json"))
    parsed = parser.parse_args(arguments)
    shape, results = MOE_SHAPES[parsed.shape], ResultFile(parsed.out)
    copy_rate = COPY_BYTES_PER_S
    if torch.cuda.is_available():
        from benchmarks.gpu.kernels.experts import table

        copy_rate = copy_bytes_per_s()
        print(f"copies: {copy_rate / 1e12:.2f} TB/s", flush=True)
        results.put("octavo", shape.name, "copy_bytes_per_s", copy_rate)
        results.put("octavo", shape.name, "experts", table(expert_sizes(shape.config), copy_rate))
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        engine = load_dummy(write_model(shape, Path(folder)), OPTIONS)
        print(f"ready after {time.perf_counter() - began:.1f} s: {engine.llm.ready.seconds}", flush=True)
        results.put("octavo", shape.name, "decode", measure(engine, shape, copy_rate, BATCHES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
