"""A row's recurrent state through its life: cut prompts, crowds, owners that come and go, steps that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conformance.families import FAMILIES
from tests.worker.step_driver import Driver, make_model, random_tokens

TOLERANCE = 1e-3


@pytest.fixture(scope="module", params=["granite hybrid", "qwen3 next"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    family, overrides = FAMILIES[request.param]
    return make_model(tmp_path_factory.mktemp("model"), family, **overrides)


def check(driver: Driver, row: int, reference: Any) -> None:
    """All logits since the row's owner entered, and every token it sampled."""
    tokens = driver.tokens[row][: driver.computed[row]]
    with torch.no_grad():
        logits = reference(torch.tensor([tokens])).logits[0]
    found = driver.recorder.of(row)
    torch.testing.assert_close(found[-len(tokens) :], logits, atol=TOLERANCE, rtol=0)


def test_a_prompt_in_pieces(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    driver.add(2, random_tokens(200))
    driver.prefill(2, [1, 1, 2, 63, 64, 1, 5])
    driver.decode([2], 4)
    check(driver, 2, model[1])


def test_a_crowd_of_singles_and_chunks(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    lengths = {0: 5, 1: 70, 2: 1, 3: 130}
    for row, length in lengths.items():
        driver.add(row, random_tokens(length, seed=row))
    driver.step({1: 70, 3: 1, 2: 1})
    driver.step({3: 128, 1: 1, 0: 5, 2: 1})
    driver.step({3: 1, 2: 1, 0: 1, 1: 1})
    driver.decode([2, 0], 3)
    for row in lengths:
        check(driver, row, model[1])


@pytest.mark.parametrize("length", [1, 2, 40])
def test_a_row_that_changes_hands_starts_from_nothing(model: tuple[Path, Any], length: int) -> None:
    driver = Driver(model[0])
    driver.add(1, random_tokens(50, seed=9))
    driver.add(4, random_tokens(30, seed=8))
    driver.step({1: 50, 4: 30})
    driver.decode([1, 4], 2)
    driver.end(1)
    driver.add(1, random_tokens(length, seed=length))
    driver.step({1: length, 4: 1})
    driver.decode([4, 1], 2)
    check(driver, 1, model[1])
    check(driver, 4, model[1])


def test_a_row_that_comes_back_after_preemption(model: tuple[Path, Any]) -> None:
    """All it knew, its own tokens among it, is computed again in one go."""
    driver = Driver(model[0])
    driver.add(0, random_tokens(20))
    driver.prefill(0)
    driver.decode([0], 3)
    known = list(driver.tokens[0])
    driver.end(0)
    driver.add(0, known, num_prompt=20)
    driver.prefill(0, [11])
    driver.decode([0], 2)
    check(driver, 0, model[1])


def test_what_spoils_one_row_spoils_no_other(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    for row in (0, 1):
        driver.add(row, random_tokens(20, seed=row))
    driver.step({0: 20, 1: 20})
    for states in driver.runner._forward._states.by_layer:
        for state in states:
            state[0] = float("nan")
    output = driver.step({0: 1, 1: 1})
    assert list(output.failed) == [0]
    driver.end(0)
    driver.add(0, random_tokens(7, seed=3))
    driver.step({0: 7, 1: 1})
    check(driver, 0, model[1])
    check(driver, 1, model[1])
