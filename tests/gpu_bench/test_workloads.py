"""The workloads are a definition that others share: the same ids for everybody, limits from the shapes."""

from __future__ import annotations

import hashlib
import json

import pytest

from benchmarks.gpu.limits import decode_step, step_ms, whole_run, workload_seconds
from benchmarks.gpu.shapes import LLAMA_8B, QWEN_0_6B, write_model, write_tokenizer
from benchmarks.gpu.workloads import SHARED_PREFIX, WORKLOADS, Lengths, lengths, requests

DIGESTS = {
    "W1": "949d423080358d50",
    "W2": "8553a778e7bfd9f3",
    "W3": "f661eec8aa06c887",
    "W4": "1dc94dea3ffe3f92",
    "W5": "a3030c52c38f0cc0",
    "W6": "81d13f5809843f86",
}
"""Of repetition 0 at a vocabulary of 128256, as vLLM's numbers were taken with."""


@pytest.mark.parametrize("name", WORKLOADS)
def test_ids_are_those_of_the_definition(name: str) -> None:
    ids = [list(request) for request in requests(name, 128256, 0)]
    assert hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16] == DIGESTS[name]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_repetition_changes_ids_and_not_lengths(name: str) -> None:
    first, second = requests(name, 128256, 0), requests(name, 128256, 1)
    assert [(len(a.prompt_token_ids), a.output_len) for a in first] == lengths(name)
    assert [(len(a.prompt_token_ids), a.output_len) for a in second] == lengths(name)
    assert all(a.prompt_token_ids != b.prompt_token_ids for a, b in zip(first, second, strict=True))


def test_w4_shares_its_prefix_and_nothing_more() -> None:
    batch = requests("W4", 128256, 0)
    assert len({tuple(request.prompt_token_ids[:SHARED_PREFIX]) for request in batch}) == 1
    assert len({request.prompt_token_ids[SHARED_PREFIX] for request in batch}) > 200


@pytest.mark.parametrize(
    ("shape", "weight_gb", "kv_bytes", "w2_ms", "w5_ms"),
    [(LLAMA_8B, 15.01, 131072, 4.99, 9.26), (QWEN_0_6B, 1.192, 114688, 0.405, 4.14)],
)
def test_limits_are_the_published_ones(
    shape: object, weight_gb: float, kv_bytes: int, w2_ms: float, w5_ms: float
) -> None:
    assert shape.weight_bytes / 1e9 == pytest.approx(weight_gb, rel=1e-3)
    assert shape.kv_bytes_per_token == kv_bytes
    assert step_ms("W2", shape) == pytest.approx(w2_ms, rel=2e-3)
    assert step_ms("W5", shape) == pytest.approx(w5_ms, rel=2e-3)


def test_prefill_limit_is_arithmetic_and_w3_below_it() -> None:
    flop_per_token = whole_run(LLAMA_8B, lengths("W3")).flop / (16 * 8192)
    assert flop_per_token == pytest.approx(16.11e9, rel=2e-3)
    assert 16 * 8192 / workload_seconds("W3", LLAMA_8B) == pytest.approx(46_300, rel=5e-3)


def test_a_shared_prefix_is_computed_and_read_once() -> None:
    apart = whole_run(LLAMA_8B, [Lengths(64, 3)] * 4)
    shared = whole_run(LLAMA_8B, [Lengths(2048 + 64, 3)] * 4, 2048)
    once = whole_run(LLAMA_8B, [Lengths(2048, 1)])
    # Beyond the lonely 64: the prefix's products once, its KV once in each of two decode steps.
    kv_once = 2 * 2048 * LLAMA_8B.kv_bytes_per_token
    assert shared.bytes - apart.bytes == kv_once
    assert shared.flop > apart.flop + once.flop - 2 * LLAMA_8B.head_elements - 1


def test_decode_step_counts_every_context() -> None:
    one, two = decode_step(QWEN_0_6B, 1, 100), decode_step(QWEN_0_6B, 2, 100)
    assert two.bytes - one.bytes == 100 * QWEN_0_6B.kv_bytes_per_token
    assert two.flop == 2 * one.flop


def test_model_folder_has_a_tokenizer_of_the_right_size(tmp_path: object) -> None:
    from tokenizers import Tokenizer

    folder = write_model(LLAMA_8B, tmp_path)
    write_tokenizer(folder, 1003)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 1003
    assert all(tokenizer.decode([token]) for token in range(256, 1003))
    assert json.loads((folder / "config.json").read_text()) == dict(LLAMA_8B.config)
