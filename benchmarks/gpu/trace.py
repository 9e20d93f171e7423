"""What ran on the GPU, from a profiler's trace: kernels per step, how long it was busy, who took the time."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
"""Categories of trace events that keep the GPU busy."""

MAX_NAME = 70


@dataclass(frozen=True, order=True)
class GpuEvent:
    """Microseconds on the profiler's clock."""

    start: float
    end: float
    name: str


def read_gpu_events(path: Path) -> list[GpuEvent]:
    """All work on the GPU in a Chrome trace, in order of start."""
    events = json.loads(path.read_text())["traceEvents"]
    return sorted(
        GpuEvent(float(event["ts"]), float(event["ts"]) + float(event["dur"]), str(event["name"]))
        for event in events
        if event.get("cat") in GPU_WORK and "dur" in event
    )


def summarise(events: Sequence[GpuEvent], steps: int, top: int = 14) -> dict[str, Any]:
    """Per step, for a stretch of `steps` equal steps that starts and ends with an idle GPU.

    `busy` is the union of all intervals: kernels that overlap count once. `top` names sum their own
    times, so together they may exceed it.
    """
    if not events:
        return {"kernels_per_step": 0.0}
    span = max(event.end for event in events) - events[0].start
    times: dict[str, list[float]] = defaultdict(list)
    for event in events:
        times[event.name[:MAX_NAME]].append(event.end - event.start)
    ranked = sorted(times.items(), key=lambda item: -sum(item[1]))
    gaps = _gaps(events)
    return {
        "kernels_per_step": len(events) / steps,
        "span_us_per_step": span / steps,
        "busy_us_per_step": _covered(events) / steps,
        "median_gap_us": statistics.median(gaps) if gaps else 0.0,
        "gaps_over_5us_per_step": sum(gap > 5 for gap in gaps) / steps,
        "top": [
            {"name": name, "us_per_step": sum(each) / steps, "per_step": len(each) / steps}
            for name, each in ranked[:top]
        ],
        "rest_us_per_step": sum(sum(each) for _, each in ranked[top:]) / steps,
    }


def _covered(events: Sequence[GpuEvent]) -> float:
    covered, last = 0.0, events[0].start
    for event in events:
        covered += max(0.0, event.end - max(event.start, last))
        last = max(last, event.end)
    return covered


def _gaps(events: Sequence[GpuEvent]) -> list[float]:
    """From the end of all earlier work to the next start; 0 where they overlap."""
    gaps, last = [], events[0].end
    for event in events[1:]:
        gaps.append(max(0.0, event.start - last))
        last = max(last, event.end)
    return gaps
