"""The result file: added to, merged by session, never losing a number to a failure."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.gpu.results import ResultFile, read_sessions, rounded


def test_entries_add_up_and_a_failure_replaces_no_number(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    file = ResultFile(path, "here")
    file.put("octavo", "llama8b", "W2", {"error": "early"})
    file.put("octavo", "llama8b", "W2", {"ms_per_token_median": 5.0})
    ResultFile(path, "here").put("vllm", "llama8b", "W2", {"ms_per_token_median": 6.0})
    file.put("octavo", "llama8b", "W2", {"error": "late"})
    file.add_start("octavo", "llama8b", {"ready_s": 7.0, "is_cold": True})
    file.add_start("octavo", "llama8b", {"ready_s": 3.0, "is_cold": False})
    engines = read_sessions([path])["here"]["engines"]
    assert engines["octavo"]["llama8b"]["W2"] == {"ms_per_token_median": 5.0}
    assert engines["vllm"]["llama8b"]["W2"] == {"ms_per_token_median": 6.0}
    assert [start["ready_s"] for start in engines["octavo"]["llama8b"]["starts"]] == [7.0, 3.0]


def test_files_of_two_machines_stay_two_sessions(tmp_path: Path) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    ResultFile(paths[0], "one").put("octavo", "llama8b", "W2", {"ms_per_token_median": 5.0})
    ResultFile(paths[1], "two").put("octavo", "llama8b", "W2", {"ms_per_token_median": 6.0})
    ResultFile(paths[1], "one").put("octavo", "llama8b", "W3", {"input_tok_s": 1.0})
    sessions = read_sessions(paths)
    assert sessions["one"]["engines"]["octavo"]["llama8b"].keys() == {"W2", "W3"}
    assert sessions["two"]["engines"]["octavo"]["llama8b"].keys() == {"W2"}


def test_the_same_file_twice_counts_starts_once(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    ResultFile(path, "here").add_start("octavo", "llama8b", {"ready_s": 7.0, "is_cold": True})
    record = read_sessions([path, path])["here"]["engines"]["octavo"]["llama8b"]
    assert len(record["starts"]) == 1


def test_numbers_keep_five_digits_and_stay_json() -> None:
    assert rounded({"a": [1.23456789, (2, float("nan"))]}) == {"a": [1.2346, [2, None]]}
    json.dumps(rounded({"x": float("inf")}), allow_nan=False)
