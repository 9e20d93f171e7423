"""Octavo through the harness on a CPU: every offline workload, its profile, and what is saved of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.gpu import profile_steps
from benchmarks.gpu.results import read_sessions
from benchmarks.gpu.run_engine import main
from benchmarks.gpu.run_octavo import OCTAVO
from benchmarks.gpu.shapes import Shape
from tests.gpu_bench.tiny_shape import load_tiny

SUBJECT = dataclasses.replace(OCTAVO, load=load_tiny)


@pytest.fixture
def short_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_steps, "CASES", ((1, 12), (5, 20)))
    monkeypatch.setattr(profile_steps, "HOST_STEPS", 4)


def test_all_workloads_and_the_profile(
    tiny: Shape, short_profile: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "r.json"
    assert main(SUBJECT, ["--shape", "tiny", "--out", str(out), "--reps", "2", "--profile"]) == 0
    (session,) = read_sessions([out]).values()
    record = session["engines"]["octavo"]["tiny"]
    assert record["W2"]["ms_per_token_median"] > 0
    assert record["W5"]["requests"] == 5
    assert record["W5"]["full_batch_steps_seen"] > 0
    for name in ("W1", "W3", "W4"):
        assert len(record[name]["wall_s"]) == 2
    assert record["starts"][0]["ready_s"] >= record["starts"][0]["constructor_s"] > 0
    for batch in (1, 5):
        case = record["profile"][f"batch{batch}"]
        assert case["host"]["step_us_median"] > 0
        assert {"schedule", "submit", "collect"} <= case["host"]["us_per_step"].keys()
    assert "tiny batch 5" in capsys.readouterr().out


def test_a_failing_workload_is_saved_and_the_next_one_runs(
    tiny: Shape, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "r.json"
    arguments = ["--shape", "tiny", "--out", str(out), "--reps", "1", "--only", "W5,W2"]
    # One request at a time: the five of W5 can never decode together.
    assert main(SUBJECT, [*arguments, "--set", "max_num_seqs=1"]) == 1
    (session,) = read_sessions([out]).values()
    record = session["engines"]["octavo"]["tiny"]
    assert "max_num_seqs" in record["W5"]["error"]
    assert record["W2"]["ms_per_token_median"] > 0
    # A second run adds its numbers; its failures would not have replaced any.
    assert main(SUBJECT, [*arguments[:-1], "W5"]) == 0
    (session,) = read_sessions([out]).values()
    record = session["engines"]["octavo"]["tiny"]
    assert "error" not in record["W5"]
    assert record["W2"]["ms_per_token_median"] > 0
    assert len(record["starts"]) == 2
