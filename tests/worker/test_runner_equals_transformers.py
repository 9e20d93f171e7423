"""Logits and greedy tokens through pages, chunks and mixed batches equal transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.worker.step_driver import Driver, make_model, random_tokens

TOLERANCE = 1e-4
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
    "rope_theta": 5000.0,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {}),
    "tied": ("llama", {"tie_word_embeddings": True}),
    "biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "one head each": ("llama", {"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 8}),
    "one KV head": ("llama", {"num_attention_heads": 5, "num_key_value_heads": 1}),
    "linear rope": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 1e4}}),
    "llama3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "yarn rope": ("llama", {"rope_parameters": YARN}),
    "dynamic rope": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 1e4}},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "window": ("mistral", {"sliding_window": 37}),
    "window of one": ("mistral", {"sliding_window": 1}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True}),
}


@pytest.fixture(scope="module", params=list(CASES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    family, overrides = CASES[request.param]
    return make_model(tmp_path_factory.mktemp("model"), family, **overrides)


@pytest.fixture(scope="module")
def plain_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def window_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return make_model(tmp_path_factory.mktemp("model"), "mistral", sliding_window=37)


def reference(model: Any, token_ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([token_ids])).logits[0]
    return logits


def assert_equal(driver: Driver, row: int, model: Any, *, first: int = 0) -> None:
    """All logits of a row, and every token it sampled greedily, as transformers has them."""
    computed = driver.computed[row]
    expected = reference(model, driver.tokens[row][:computed])[first:]
    actual = driver.recorder.of(row)
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 100, 600])
def test_whole_prompt(model: tuple[Path, Any], length: int) -> None:
    driver = Driver(model[0])
    driver.add(3, random_tokens(length))
    driver.prefill(3)
    assert_equal(driver, 3, model[1])


def test_chunks_then_decode(model: tuple[Path, Any]) -> None:
    driver = Driver(model[0])
    driver.add(2, random_tokens(200))
    driver.prefill(2, [1, 7, 16, 33, 1, 64])
    driver.decode([2], 5)
    assert_equal(driver, 2, model[1])
    greedy = reference(model[1], driver.tokens[2][:-1])[199:].argmax(-1).tolist()
    assert driver.tokens[2][200:] == greedy


def mixed_batches(path: Path, model: Any, **options: Any) -> None:
    """Requests of all lengths enter, run in one batch with each other's chunks, and leave."""
    driver = Driver(path, **options)
    lengths = {0: 5, 1: 70, 2: 33, 3: 1, 4: 160}
    for row, length in lengths.items():
        driver.add(row, random_tokens(length, seed=row))
        driver.step(dict.fromkeys(range(row), 1) | {row: length})
        driver.decode(list(range(row + 1)), 2)
    driver.add(6, random_tokens(90, seed=6))
    driver.step({0: 1, 6: 31, 1: 1})
    driver.add(5, random_tokens(40, seed=5))
    driver.step({6: 30, 2: 1, 5: 11, 4: 1})
    driver.step({3: 1, 5: 29, 6: 29})
    driver.decode([6, 5, 4, 3, 2, 1, 0], 3)
    for row in range(7):
        assert_equal(driver, row, model)


def test_mixed_batches(plain_model: tuple[Path, Any]) -> None:
    mixed_batches(*plain_model)


def test_mixed_batches_in_a_window(window_model: tuple[Path, Any]) -> None:
    mixed_batches(*window_model)


@pytest.mark.parametrize("block_size", [1, 4, 32])
def test_block_sizes(plain_model: tuple[Path, Any], block_size: int) -> None:
    mixed_batches(*plain_model, block_size=block_size, num_blocks=1000)


def test_groups_share_tensors(window_model: tuple[Path, Any]) -> None:
    """Two groups (of 2 and 1 layers) draw from one pool; neither disturbs the other's pages."""
    mixed_batches(*window_model, num_groups=2)


def test_rows_and_blocks_are_used_again(plain_model: tuple[Path, Any]) -> None:
    path, model = plain_model
    driver = Driver(path, num_blocks=14)
    for seed in range(6):
        row = seed % 2
        driver.add(row, random_tokens(60 + seed, seed=seed))
        driver.prefill(row, [20])
        driver.decode([row], 3)
        assert_equal(driver, row, model)
        driver.end(row)


def test_prefix_of_another_row(plain_model: tuple[Path, Any]) -> None:
    """Blocks computed for one row serve another, even in the very step that fills them."""
    path, model = plain_model
    driver = Driver(path)
    tokens = random_tokens(64)
    driver.add(0, tokens)
    driver.step({0: 32})
    driver.add(1, tokens[:32] + random_tokens(9, seed=1), shared=(0, 2))
    driver.step({0: 32, 1: 9})
    driver.decode([0, 1], 2)
    assert_equal(driver, 0, model)
    assert_equal(driver, 1, model, first=32)


def test_preempted_row_comes_again(plain_model: tuple[Path, Any]) -> None:
    path, model = plain_model
    driver = Driver(path)
    driver.add(0, random_tokens(30))
    driver.prefill(0)
    driver.decode([0], 4)
    tokens = driver.tokens[0]
    driver.end(0)
    driver.add(1, tokens, num_prompt=30)
    driver.prefill(1, [13])
    driver.decode([1], 2)
    assert_equal(driver, 1, model)


def test_next_step_needs_no_answer(plain_model: tuple[Path, Any]) -> None:
    """Steps are made from counts alone: the worker itself appends what it sampled."""
    path, model = plain_model
    driver = Driver(path)
    driver.add(0, random_tokens(20))
    outputs = [driver.step({0: count}) for count in (20, 1, 1, 1)]
    sampled = [output.token_ids[0] for output in outputs]
    assert sampled == reference(model, driver.tokens[0][:-1])[19:].argmax(-1).tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_types(plain_model: tuple[Path, Any], dtype: str) -> None:
    path, model = plain_model
    driver = Driver(path, dtype=dtype)
    driver.add(0, random_tokens(50))
    driver.prefill(0, [20])
    driver.decode([0], 2)
    narrow = driver.recorder.of(0)
    assert narrow.dtype == getattr(torch, dtype)
    expected = reference(model, driver.tokens[0][: driver.computed[0]])
    error = (narrow.float() - expected).abs().mean() / expected.abs().mean()
    assert error < {"bfloat16": 0.05, "float16": 0.01}[dtype]
