"""The short form of `make fuzz`: every target takes its seeds, its corpus and a few hundred inputs like them."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.target import NAMES, find, inputs_of

SECONDS = 0.5
NUM_INPUTS = 300
IN_A_CHILD = {"gguf_native"}
"""What may take the process along is left to the runner."""


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
