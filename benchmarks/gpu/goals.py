"""The rows of the comparison: which number of which workload, how good it has to be, how good it could be.

`floor` and `target` are ratios, Octavo's number over the peer's: the floor is "never behind", the target
is to strive for. Those of the start-up are seconds and become ratios once the peer's time is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.limits import step_ms, workload_seconds
from benchmarks.gpu.results import Record
from benchmarks.gpu.shapes import LLAMA_8B, QWEN_0_6B, Shape
from benchmarks.gpu.workloads import lengths


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    workload: str
    shape: Shape
    metric: str
    better: str
    """'lower' or 'higher'."""
    read: Callable[[Record], float | None]
    """The number in an engine's record; None if it was not measured."""
    floor: float | None = None
    target: float | None = None
    limit: float | None = None
    """What the machine allows, in the metric's unit."""
    are_seconds: bool = False
    """Floor and target are seconds, not ratios."""


def rows() -> list[Row]:
    """Every line, in the order of the table."""
    return [
        *(_step("W2", shape, floor, target) for shape, floor, target in _W2),
        *(_step("W5", shape, floor, target) for shape, floor, target in _W5),
        *(_throughput("W1", "output", shape, floor, target) for shape, floor, target in _W1),
        *(_throughput("W3", "input", shape, floor, target) for shape, floor, target in _W3),
        *(_wall("W4", shape) for shape in _BOTH),
        *(row for shape in _BOTH for row in _server(shape)),
        *(row for shape in _BOTH for row in _starts(shape)),
    ]


_BOTH = (LLAMA_8B, QWEN_0_6B)
_W2 = ((LLAMA_8B, 1.0, 0.87), (QWEN_0_6B, 0.75, 0.45))
_W5 = ((LLAMA_8B, 1.0, 0.85), (QWEN_0_6B, 0.80, 0.58))
_W1 = ((LLAMA_8B, 1.0, 1.20), (QWEN_0_6B, 1.30, 2.00))
_W3 = ((LLAMA_8B, 0.97, 1.05), (QWEN_0_6B, None, None))
_COLD_FLOOR_S, _WARM_TARGET_S = 20.0, 8.0


def _step(workload: str, shape: Shape, floor: float, target: float) -> Row:
    key = {"W2": "ms_per_token_median", "W5": "ms_per_step_full_batch_median"}[workload]
    return Row(
        workload=workload,
        shape=shape,
        metric={"W2": "ms per token", "W5": "ms per full step"}[workload],
        better="lower",
        read=_at(workload, key),
        floor=floor,
        target=target,
        limit=step_ms(workload, shape),
    )


def _throughput(workload: str, which: str, shape: Shape, floor: float | None, target: float | None) -> Row:
    sizes = lengths(workload)
    tokens = sum(size.input if which == "input" else size.output for size in sizes)
    return Row(
        workload=workload,
        shape=shape,
        metric=f"{which} tok/s",
        better="higher",
        read=_at(workload, f"{which}_tok_s"),
        floor=floor,
        target=target,
        limit=tokens / workload_seconds(workload, shape),
    )


def _wall(workload: str, shape: Shape) -> Row:
    return Row(
        workload=workload,
        shape=shape,
        metric="wall s",
        better="lower",
        read=_at(workload, "wall_s_median"),
        floor=1.0,
        target=0.70,
        limit=workload_seconds(workload, shape),
    )


def _server(shape: Shape) -> list[Row]:
    metrics = (
        ("output tok/s", "higher", "output_tok_s"),
        ("TTFT p50 ms", "lower", "ttft_ms_p50"),
        ("TPOT p50 ms", "lower", "tpot_ms_p50"),
    )
    return [
        Row(
            workload="W6",
            shape=shape,
            metric=metric,
            better=better,
            read=_at("W6", key),
            floor=1.0,
            target=1.2 if better == "higher" else 1 / 1.2,
        )
        for metric, better, key in metrics
    ]


def _starts(shape: Shape) -> list[Row]:
    """A cold start, of the offline engine, has a floor; a warm one, of the server after that, a target."""
    cold = Row(
        workload="start",
        shape=shape,
        metric="s to ready, cold",
        better="lower",
        read=_cold_start_s,
        floor=_COLD_FLOOR_S,
        are_seconds=True,
    )
    warm = Row(
        workload="start",
        shape=shape,
        metric="s to ready, server, warm",
        better="lower",
        read=_at("W6", "ready_s"),
        target=_WARM_TARGET_S,
        are_seconds=True,
    )
    return [cold, warm]


def _cold_start_s(record: Record) -> float | None:
    """The latest start without anything compiled, from the start of the process."""
    found = [start["ready_s"] for start in record.get("starts", []) if start["is_cold"]]
    return float(found[-1]) if found else None


def _at(workload: str, key: str) -> Callable[[Record], float | None]:
    def read(record: Record) -> float | None:
        value: Any = record.get(workload, {}).get(key)
        return None if value is None else float(value)

    return read
