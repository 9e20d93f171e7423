"""Vectors instead of tokens in the worker: where they go, how long they stay, which steps they slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from octavo.engine.prompt_vectors import vectors_from_tensor
from octavo.worker.extras.prompt_vectors import PromptVectorRows
from tests.worker.step_driver import Driver, make_model, random_tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return make_model(tmp_path_factory.mktemp("model"))


class NoGraphs:
    """Notes the steps that would have run in a graph."""

    is_complete = True

    def __init__(self) -> None:
        self.rows: list[list[int]] = []

    def run(self, batch: Any) -> None:
        self.rows.append(batch.rows)


def add(driver: Driver, row: int, vectors: torch.Tensor, token_ids: list[int] | None = None) -> None:
    """A row whose prompt is these vectors; token_ids: what it has answered already."""
    num_prompt = len(vectors)
    driver.add(row, [0] * num_prompt + (token_ids or []), num_prompt=num_prompt)
    driver.new[-1] = msgspec.structs.replace(driver.new[-1], prompt_vectors=vectors_from_tensor(vectors))


def kept(driver: Driver) -> set[int]:
    (extra,) = (extra for extra in driver.runner.extras if isinstance(extra, PromptVectorRows))
    return set(extra._vectors)


@pytest.mark.parametrize("chunks", [[], [1, 7, 20], [16, 16]])
def test_chunks_decode_and_a_second_start(model: tuple[Path, Any], chunks: list[int]) -> None:
    path, reference = model
    driver = Driver(path)
    driver.runner._graphs = graphs = NoGraphs()  # type: ignore[assignment]
    tokens = random_tokens(40)
    table = reference.get_input_embeddings().weight.detach()
    add(driver, 0, table[tokens])
    driver.add(1, random_tokens(9, seed=1))
    driver.prefill(0, chunks)
    assert not graphs.rows, "no step with vectors may run in a graph"
    driver.prefill(1)
    driver.decode([0, 1], 3)
    assert graphs.rows[1:] == [[1, 0]] * 3
    assert not kept(driver), "a prompt that is through keeps nothing"
    answer = driver.tokens[0][40:]
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens + answer])).logits[0]
    torch.testing.assert_close(driver.recorder.of(0), expected[:-1], atol=1e-4, rtol=1e-4)
    assert answer == expected[39:-1].argmax(-1).tolist()
    # As after preemption: prompt and answer so far are computed once more, in one go.
    driver.end(0)
    add(driver, 2, table[tokens], answer)
    driver.prefill(2, [45 - 8])
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens + answer])).logits[0]
    torch.testing.assert_close(driver.recorder.of(2), expected, atol=1e-4, rtol=1e-4)


def test_a_row_that_ends_early_gives_its_vectors_back(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    table = model[1].get_input_embeddings().weight.detach()
    add(driver, 3, table[random_tokens(30)])
    driver.step({3: 10})
    assert kept(driver) == {3}
    driver.end(3)
    driver.add(3, [0] * 30)
    driver.prefill(3)
    assert not kept(driver)
    with torch.inference_mode():
        expected = model[1](torch.tensor([[0] * 30])).logits[0]
    torch.testing.assert_close(driver.recorder.of(3), expected, atol=1e-4, rtol=1e-4)
