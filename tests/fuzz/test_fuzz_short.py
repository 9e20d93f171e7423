"""The short form of `make fuzz`: every target takes its seeds, its corpus and some hundred like them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from random import Random

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


def test_the_runner_sees_all_kinds_of_failures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.run", "broken", "--seconds", "5", "--engine", "plain"]
    command += ["--work", str(tmp_path), "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and done.stdout.endswith("FAIL fuzz\n"), done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    found = result["targets"]["broken"]
    assert found["runs"] > 0 and not result["passed"]
    failed = {Path(crash["input"]).read_bytes()[:1]: crash["what"] for crash in found["crashes"]}
    assert failed[b"E"].startswith("KeyError") and failed[b"M"].startswith("MemoryError")
    deaths = [failed[kind] for kind in (b"A", b"H") if kind in failed]  # A busy machine has few lives.
    assert deaths and all(what.startswith("the process ended") for what in deaths)
    assert all(
        crash["repeat"].startswith("python -m tests.fuzz.repeat broken ") for crash in found["crashes"]
    )
