"""What a profiler's trace is boiled down to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu.profile_steps import report
from benchmarks.gpu.trace import MAX_NAME, read_gpu_events, summarise


def event(name: str, start: float, duration: float, category: str = "kernel") -> dict[str, object]:
    return {"ph": "X", "cat": category, "name": name, "ts": start, "dur": duration, "pid": 0, "tid": 7}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two steps: a product, a kernel that starts before it ends, a copy after a long gap."""
    events = []
    for begin in (1000.0, 1100.0):
        events += [
            event("down " + "x" * 100, begin, 10.0),
            event("norm", begin + 8.0, 4.0),
            event("Memcpy DtoH", begin + 20.0, 1.0, "gpu_memcpy"),
            event("cudaGraphLaunch", begin, 50.0, "cuda_runtime"),
        ]
    events.append({"ph": "M", "name": "process_name", "pid": 0})
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": list(reversed(events))}))
    return path


def test_only_the_gpus_work_counts_and_overlap_counts_once(trace: Path) -> None:
    found = summarise(read_gpu_events(trace), steps=2)
    assert found["kernels_per_step"] == 3
    assert found["span_us_per_step"] == pytest.approx(121 / 2)
    assert found["busy_us_per_step"] == pytest.approx(13)
    assert found["gaps_over_5us_per_step"] == pytest.approx(3 / 2)


def test_names_are_ranked_by_their_time_and_the_rest_is_summed(trace: Path) -> None:
    found = summarise(read_gpu_events(trace), steps=2, top=1)
    (first,) = found["top"]
    assert first["name"].startswith("down") and len(first["name"]) == MAX_NAME
    assert (first["us_per_step"], first["per_step"]) == (10, 1)
    assert found["rest_us_per_step"] == pytest.approx(5)


def test_the_report_says_where_the_time_goes(trace: Path) -> None:
    host = {"step_us_median": 70.0, "us_per_step": {"schedule": 5.0, "submit": 20.0}}
    case = {"limit_us": 26.0, "host": host, "gpu": summarise(read_gpu_events(trace), 2)}
    text = report("llama8b batch 1", case)
    assert "limit/busy 200%" in text
    assert "norm" in text and "schedule 5" in text
    assert max(map(len, text.splitlines())) < 110


def test_a_trace_without_kernels_is_no_error() -> None:
    host = {"step_us_median": 70.0, "us_per_step": {}}
    case = {"limit_us": 1.0, "host": host, "gpu": summarise([], 2)}
    assert report("cpu", case).startswith("== cpu")
