"""Stages: what fails is noted and the next one runs; nothing outlives the deadline."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks.gpu import main as main_module
from benchmarks.gpu import stages as stages_module
from benchmarks.gpu.main import main
from benchmarks.gpu.stages import Stages


def make(tmp_path: Path, budget_s: float = 100, peer_path: Path | None = None) -> Stages:
    return Stages(tmp_path / "log.txt", budget_s, peer_path)


def test_a_failing_stage_is_noted_with_its_last_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = make(tmp_path)
    stages.run("no such module", "nothing_here")
    stages.run("help", "compare", "--help")
    assert len(stages.failed) == 1
    assert "no such module: ended with status 1" in stages.failed[0]
    assert "nothing_here" in capsys.readouterr().out
    assert "usage:" in (tmp_path / "log.txt").read_text()


def test_without_time_nothing_is_started(tmp_path: Path) -> None:
    stages = make(tmp_path, budget_s=1)
    stages.run("late", "compare", "--help")
    assert "not run" in stages.failed[0]
    assert not (tmp_path / "log.txt").exists()


def test_a_stage_is_ended_at_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages_module, "GRACE_S", 0.5)
    began = time.monotonic()
    status, _ = make(tmp_path)._follow(["sleep", "60"], os.environ, 0.5)
    assert status == -signal.SIGTERM
    stubborn = ["bash", "-c", "trap '' TERM; sleep 60 & wait; sleep 60"]
    status, _ = make(tmp_path)._follow(stubborn, os.environ, 0.5)
    assert status == -signal.SIGKILL
    assert time.monotonic() - began < 30


def test_engines_get_their_own_caches_and_the_peer_its_own_packages(tmp_path: Path) -> None:
    stages = make(tmp_path, peer_path=tmp_path / "site")
    ours, theirs = stages.environment("octavo", "llama8b"), stages.environment("vllm", "llama8b")
    assert ours["TRITON_CACHE_DIR"] != theirs["TRITON_CACHE_DIR"]
    assert ours.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
    assert theirs["PYTHONPATH"] == str(tmp_path / "site")
    assert theirs["VLLM_NO_USAGE_STATS"] == "1"
    assert stages.environment("octavo", "qwen0.6b")["TRITON_CACHE_DIR"] != ours["TRITON_CACHE_DIR"]


def test_engines_take_turns_per_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(Stages, "run", lambda self, name, *rest, **named: ran.append((name, *rest)))
    arguments = ["--out", str(tmp_path), "--reps", "2", "--only", "W2", "--set", "max_num_seqs=8"]
    assert main([*arguments, "--stages", "check,offline,server,profile"]) == 0
    assert [name for name, *_ in ran] == [
        "check",
        "offline llama8b octavo",
        "offline llama8b vllm",
        "server llama8b octavo",
        "server llama8b vllm",
        "profile llama8b",
        "offline qwen0.6b octavo",
        "offline qwen0.6b vllm",
        "server qwen0.6b octavo",
        "server qwen0.6b vllm",
        "profile qwen0.6b",
    ]
    first = ran[1]
    assert first[1] == "run_octavo" and first[-1] == "--set=max_num_seqs=8"
    assert first[first.index("--reps") + 1] == "2"
    assert "--set=max_num_seqs=8" not in ran[2]
    ran.clear()
    main(
        [
            *arguments,
            "--stages",
            "offline,server",
            "--no-server",
            "--engines",
            "octavo",
            "--shapes",
            "llama8b",
        ]
    )
    assert [name for name, *_ in ran] == ["offline llama8b octavo"]


def test_wrong_stages_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--stages", "offlin"])
    assert "none of check, offline" in capsys.readouterr().err


def test_compare_stage_writes_the_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {"version": "1", "W2": {"ms_per_token_median": 5.0}}
    session = {
        "date": "2026-11-23",
        "started": "2026-11-23T10:00:00",
        "machine": {"gpu": "a"},
        "versions": {},
        "engines": {"octavo": {"llama8b": found}, "vllm": {"llama8b": found}},
    }
    (tmp_path / "results.json").write_text(json.dumps({"sessions": {"s": session}}))
    assert main_module.main(["--out", str(tmp_path), "--stages", "compare", "--commit", "abc"]) == 0
    (result,) = json.loads((tmp_path / "h100.json").read_text())["results"]
    assert result["ratio"] == 1.0
    assert "W2" in capsys.readouterr().out


@pytest.mark.parametrize("has_xz", [True, False])
def test_the_peer_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_xz: bool) -> None:
    if has_xz and not shutil.which("xz"):
        pytest.skip("no xz on this machine")
    if not has_xz:
        monkeypatch.setattr(shutil, "which", lambda _: None)
    package = tmp_path / "from" / "vllm" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text("x = 1")
    archive, site = tmp_path / "peer.tar.xz", tmp_path / "site"
    with tarfile.open(archive, "w:xz") as packed:
        packed.add(tmp_path / "from" / "vllm", "./vllm")
    main_module.unpack_peer(archive, site)
    assert (site / "vllm" / "__init__.py").read_text() == "x = 1"
    archive.unlink()
    main_module.unpack_peer(archive, site)  # there already: the archive is not even looked at
