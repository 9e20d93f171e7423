"""Extras, prompt log-probabilities, and rows that fail alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.messages.params import SamplingParams
from octavo.worker.extras import prompt_logprobs
from tests.worker.step_driver import Driver, make_model, random_tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return make_model(tmp_path_factory.mktemp("model"))


def test_hooks_come_in_order(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    driver.add(0, random_tokens(5))
    driver.step({0: 5})
    driver.step({0: 1})
    forward = ["before_forward", "after_forward", "before_sample", "after_sample"]
    assert driver.recorder.calls == ["requests_changed", *forward, *forward]


def test_a_step_that_only_ends_rows(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    driver.add(0, random_tokens(5))
    driver.step({0: 5})
    driver.end(0)
    output = driver.step({})
    assert (output.rows, output.token_ids) == ([], [])


def test_a_chunk_that_does_not_reach_the_end_samples_nothing(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    driver.add(0, random_tokens(9))
    driver.add(1, random_tokens(4))
    output = driver.step({0: 8, 1: 4})
    assert output.rows == [1]
    assert driver.step({0: 1}).rows == [0]


@pytest.mark.parametrize("chunks", [[], [1, 1, 5, 20], [16, 16], [39]])
@pytest.mark.parametrize("at_once", [3, 64])
def test_prompt_logprobs(
    model: tuple[Path, Any], chunks: list[int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_logprobs, "AT_ONCE", at_once)
    path, reference = model
    tokens = random_tokens(40)
    driver = Driver(path)
    driver.add(0, random_tokens(3, seed=1))
    driver.add(1, tokens, SamplingParams(temperature=0.0, prompt_logprobs=2))
    found = []
    for chunk in [*chunks, 40 - sum(chunks)]:
        output = driver.step({1: chunk})
        found += output.prompt_logprobs.get(1, [])
        assert 0 not in output.prompt_logprobs
    assert driver.step({1: 1, 0: 3}).prompt_logprobs == {}
    with torch.no_grad():
        expected = reference(torch.tensor([tokens])).logits[0].log_softmax(-1)
    assert len(found) == 39
    for position, entry in enumerate(found):
        best = expected[position].topk(2)
        assert entry.token_ids == [tokens[position + 1], *best.indices.tolist()]
        values = [expected[position, tokens[position + 1]].item(), *best.values.tolist()]
        assert entry.logprobs == pytest.approx(values, abs=1e-4)
        assert entry.rank == int((expected[position] > values[0] + 1e-6).sum()) + 1


def test_a_row_that_asked_gives_way_to_one_that_did_not(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    driver.add(0, random_tokens(10), SamplingParams(temperature=0.0, prompt_logprobs=0))
    assert len(driver.step({0: 10}).prompt_logprobs[0]) == 9
    driver.end(0)
    driver.add(0, random_tokens(10))
    assert driver.step({0: 10}).prompt_logprobs == {}


def test_a_row_without_finite_logits_fails_alone(model: tuple[Path, Any]) -> None:
    path, reference = model
    driver = Driver(path)
    driver.add(0, random_tokens(20))
    driver.add(1, random_tokens(30, seed=1))
    driver.step({0: 20, 1: 30})
    for pages in driver.kv.pages:
        pages.keys_BKND[driver.tables[0][0][0]] = float("nan")
        pages.values_BKND[driver.tables[0][0][0]] = float("nan")
    output = driver.step({0: 1, 1: 1})
    assert output.rows == [1] and len(output.token_ids) == 1
    assert list(output.failed) == [0] and "finite" in output.failed[0]
    # The core may have made the next step already; the failed row must not break it.
    output = driver.step({0: 1, 1: 1})
    assert output.rows == [1] and list(output.failed) == [0]
    with torch.no_grad():
        logits = reference(torch.tensor([driver.tokens[1][:-1]])).logits[0]
    assert driver.tokens[1][30:] == logits[29:].argmax(-1).tolist()


@pytest.mark.parametrize(
    "wish",
    [
        {"allowed_token_ids": [4], "bad_words_token_ids": [[4]]},
        {"temperature": 1.0, "repetition_penalty": 1e-300},
    ],
)
def test_a_row_whose_own_parameters_leave_no_token_is_told_so(
    model: tuple[Path, Any], wish: dict[str, Any]
) -> None:
    """To send it again is of no use; that the model's logits are broken, nobody's wish is to blame for."""
    driver = Driver(model[0])
    driver.add(0, random_tokens(20))
    driver.add(1, random_tokens(20, seed=1), SamplingParams(**wish))
    output = driver.step({0: 20, 1: 20})
    assert list(output.failed) == output.refused == [1]
    for pages in driver.kv.pages:
        pages.keys_BKND[driver.tables[0][0][0]] = float("nan")
        pages.values_BKND[driver.tables[0][0][0]] = float("nan")
    output = driver.step({0: 1, 1: 1})
    assert sorted(output.failed) == [0, 1] and output.refused == [1]


def test_blocks_of_a_failed_row_do_not_hurt_the_next(model: tuple[Path, Any]) -> None:
    """NaN left behind in a block is never read by whoever gets the block next."""
    driver = Driver(model[0], num_blocks=10)
    driver.add(0, random_tokens(100))
    driver.prefill(0)
    for pages in driver.kv.pages:
        pages.rows_RC.fill_(float("nan"))
    driver.end(0)
    for row in (1, 2):
        driver.add(row, random_tokens(20 + row, seed=row))
        driver.prefill(row, [7])
    driver.decode([1, 2], 3)
    for row in (1, 2):
        assert driver.recorder.of(row).isfinite().all()


def test_blocks_before_the_window_may_be_gone(tmp_path: Path) -> None:
    path, reference = make_model(tmp_path, "mistral", sliding_window=20)
    driver = Driver(path, block_size=4)
    driver.add(0, random_tokens(50))
    driver.prefill(0, [30])
    first_needed = (50 - 20 + 1) // 4
    for pages in driver.kv.pages:
        pages.keys_BKND[driver.tables[0][0][:first_needed]] = float("nan")
        pages.values_BKND[driver.tables[0][0][:first_needed]] = float("nan")
    table = driver.runner.rows.tables[0]
    table[0, :first_needed] = 0
    driver.decode([0], 3)
    with torch.no_grad():
        expected = reference(torch.tensor([driver.tokens[0][:-1]])).logits[0]
    torch.testing.assert_close(driver.recorder.of(0), expected, atol=1e-4, rtol=0)
