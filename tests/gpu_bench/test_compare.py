"""From both engines' records to the table, the claim and its picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import compare
from benchmarks.gpu.goals import rows
from benchmarks.gpu.plot import draw, speed_up

MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "driver": "1"}


def record(scale: float) -> dict[str, Any]:
    """An engine that needs `scale` times as long for everything."""
    return {
        "version": "1.0",
        "starts": [{"ready_s": 88 * scale, "is_cold": True}, {"ready_s": 30 * scale, "is_cold": False}],
        "W1": {"output_tok_s": 10_000 / scale},
        "W2": {"ms_per_token_median": 6.0 * scale},
        "W3": {"input_tok_s": 38_000 / scale},
        "W4": {"wall_s_median": 2.0 * scale},
        "W5": {"ms_per_step_full_batch_median": 13.5 * scale},
        "W6": {
            "ready_s": 42 * scale,
            "output_tok_s": 5_500 / scale,
            "ttft_ms_p50": 53 * scale,
            "tpot_ms_p50": 9.7 * scale,
        },
    }


def session(started: str, **engines: dict[str, Any]) -> dict[str, Any]:
    return {
        "date": started[:10],
        "started": started,
        "machine": MACHINE,
        "versions": {"torch": "2.11.0"},
        "engines": {name: {"llama8b": found, "qwen0.6b": found} for name, found in engines.items()},
    }


def save(path: Path, sessions: dict[str, dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"sessions": sessions}))
    return path


def by_name(sessions: dict[str, dict[str, Any]]) -> dict[tuple[str, str, str], compare.Compared]:
    found = compare.compare(sessions)
    return {(one.row.workload, one.row.shape.name, one.row.metric): one for one in found}


def test_every_row_is_compared_and_judged() -> None:
    found = by_name({"s": session("2026-11-23T10:00:00", octavo=record(0.9), vllm=record(1.0))})
    assert len(found) == len(rows())
    step = found["W2", "llama8b", "ms per token"]
    assert (round(step.ratio, 3), step.verdict) == (0.9, "floor")
    assert step.share_of_limit == pytest.approx(4.991 / 5.4, rel=1e-3)
    assert found["W2", "qwen0.6b", "ms per token"].verdict == "BEHIND"
    rate = found["W1", "llama8b", "output tok/s"]
    assert (round(rate.ratio, 3), rate.verdict) == (1.111, "floor")
    assert found["W3", "llama8b", "input tok/s"].verdict == "target"
    assert found["W3", "qwen0.6b", "input tok/s"].verdict == ""
    # Seconds that are asked for become ratios to what the peer needed.
    cold = found["start", "llama8b", "s to ready, cold"]
    assert cold.floor == pytest.approx(20 / 88)
    assert cold.verdict == "BEHIND"
    warm = found["start", "llama8b", "s to ready, server, warm"]
    assert (warm.peer, warm.verdict) == (42, "not yet")


def test_equal_engines_meet_a_floor_of_one() -> None:
    found = by_name({"s": session("2026-11-23T10:00:00", octavo=record(1.0), vllm=record(1.0))})
    assert found["W6", "llama8b", "TTFT p50 ms"].verdict == "floor"
    assert found["W6", "llama8b", "output tok/s"].verdict == "floor"


def test_a_pair_of_one_session_wins_over_newer_numbers_apart() -> None:
    sessions = {
        "pair": session("2026-11-23T10:00:00", octavo=record(0.9), vllm=record(1.0)),
        "ours": session("2026-11-24T10:00:00", octavo=record(0.5)),
    }
    step = by_name(sessions)["W2", "llama8b", "ms per token"]
    assert step.octavo == pytest.approx(5.4)
    assert step.is_one_session


def test_numbers_of_two_sessions_are_marked() -> None:
    sessions = {
        "theirs": session("2026-11-23T10:00:00", vllm=record(1.0)),
        "ours": session("2026-11-23T11:00:00", octavo=record(0.5)),
    }
    found = compare.compare(sessions)
    assert not any(one.is_one_session for one in found)
    assert "0.50*" in compare.table(found)
    assert "two sessions" in compare.claim(found, sessions, "abc")["notes"][0]


def test_failed_and_missing_workloads_leave_their_rows_out() -> None:
    ours = {**record(0.9), "W5": {"error": "out of memory"}}
    del ours["W6"]
    found = by_name({"s": session("2026-11-23T10:00:00", octavo=ours, vllm=record(1.0))})
    assert not any(workload in ("W5", "W6") for workload, _, _ in found)
    assert ("W1", "llama8b", "output tok/s") in found


def test_the_claim_has_the_promised_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = session("2026-11-23T10:00:00", octavo=record(0.5), vllm=record(1.0))
    files = [save(tmp_path / "r.json", {"s": both})]
    out = tmp_path / "results" / "h100.json"
    missed = compare.main([*map(str, files), "--save", str(out), "--commit", "abc"])
    claim = json.loads(out.read_text())
    assert claim.keys() == {"commit", "date", "machine", "versions", "results"}
    assert (claim["commit"], claim["date"], claim["machine"]) == ("abc", "2026-11-23", MACHINE)
    assert claim["versions"] == {"torch": "2.11.0", "octavo": "1.0", "vllm": "1.0"}
    keys = {"workload", "shape", "metric", "better", "octavo", "peer", "ratio", "limit", "floor", "target"}
    for result in claim["results"]:
        assert result.keys() == keys
        assert result["ratio"] == pytest.approx(result["octavo"] / result["peer"], rel=1e-3)
        assert result["better"] in ("lower", "higher")
    # Half the time meets every floor except the cold start's 20 seconds.
    assert missed == 2
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 1 + len(claim["results"])
    assert max(map(len, printed.splitlines())) < 120


def test_the_picture_is_the_same_every_time(tmp_path: Path) -> None:
    both = {"s": session("2026-11-23T10:00:00", octavo=record(0.5), vllm=record(1.0))}
    claim = compare.claim(compare.compare(both), both, "abc")
    assert {round(speed_up(result), 6) for result in claim["results"]} == {2.0}
    pictures = [tmp_path / f"{name}.svg" for name in ("one", "two")]
    for picture in pictures:
        draw(claim, picture)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert len(pictures[0].read_bytes()) > 5000


def test_numbers_are_short() -> None:
    assert [compare.number(value) for value in (10_784.3, 6.4679, 0.40532, 57.0, 0)] == [
        "10,784",
        "6.47",
        "0.405",
        "57.0",
        "0",
    ]
