"""The short form of `make fuzz`: every target takes its seeds, its corpus and some hundred like them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz.target import NAMES, find, inputs_of

ROOT = Path(__file__).parents[2]
SECONDS = 0.25
NUM_INPUTS = 150


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_typed_refusals(name: str, tmp_path: Path) -> None:
    target = find(name)
    run = target.open(tmp_path)
    inputs = inputs_of(name, target)
    assert inputs
    for data in inputs:
        run(data[: target.max_bytes])
    rng = Random(1)
    end = time.monotonic() + SECONDS
    for _ in range(NUM_INPUTS):
        run(target.mutate(rng.choice(inputs), rng)[: target.max_bytes])
        if time.monotonic() > end:
            break


def run(target: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    command = [sys.executable, "-m", "tests.fuzz.run", target, "--seconds", "5", "--engine", "plain"]
    command += ["--work", str(folder), "--out", str(folder / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    return done, json.loads((folder / "out.json").read_text())


def test_what_many_inputs_leave_behind_is_no_failure_of_the_last(tmp_path: Path) -> None:
    done, result = run("aging", tmp_path)
    assert done.returncode == 0 and result["passed"], result
    assert result["targets"]["aging"]["runs"] > 2048, "more than one process has room for"


def test_the_runner_sees_all_kinds_of_failures(tmp_path: Path) -> None:
    done, result = run("broken", tmp_path)
    assert done.returncode == 1 and done.stdout.endswith("FAIL fuzz\n"), done.stderr
    found = result["targets"]["broken"]
    assert found["runs"] > 0 and not result["passed"]
    failed = {Path(crash["input"]).read_bytes()[:1]: crash["what"] for crash in found["crashes"]}
    assert failed[b"E"].startswith("KeyError") and failed[b"M"].startswith("MemoryError")
    deaths = [failed[kind] for kind in (b"A", b"H") if kind in failed]  # A busy machine has few lives.
    assert deaths and all(what.startswith("the process ended") for what in deaths)
    assert all(
        crash["repeat"].startswith("python -m tests.fuzz.repeat broken ") for crash in found["crashes"]
    )
