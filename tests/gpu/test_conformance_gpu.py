"""Every native family once on a GPU in bfloat16: no further from float32 than transformers' bfloat16 is.

pytest -m gpu -n 8 tests/gpu/test_conformance_gpu.py        many kernels are compiled: several at a time
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from benchmarks.gpu.check import generate, token_logprobs
from benchmarks.gpu.tiny_models import load_reference, round_weights
from tests.conformance.families import FAMILIES
from tests.conformance.test_generation import prompts
from tests.tiny import save_model

pytestmark = pytest.mark.gpu

OPTIONS: dict[str, Any] = {
    "dtype": "bfloat16",
    "max_model_len": 648,
    "max_num_seqs": 32,
    "max_num_batched_tokens": 256,  # so that the longest prompt is cut
    "num_gpu_blocks_override": 2048,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_strays_no_further_than_transformers(name: str, tmp_path: Path) -> None:
    family, overrides = FAMILIES[name]
    folder = save_model(tmp_path / "model", family, **overrides)
    answers = generate(folder, prompts(), **OPTIONS)
    narrow = load_reference(folder, "cuda", "bfloat16")
    theirs = [token_logprobs(narrow, answer)[0] for answer in answers]
    exact_model = round_weights(load_reference(folder, "cuda"))
    exact = [token_logprobs(exact_model, answer)[0] for answer in answers]
    ours, allowed = mean_error([answer.logprobs for answer in answers], exact), mean_error(theirs, exact)
    assert ours <= 1.5 * allowed + 2e-3, f"mean error {ours:.4f}, transformers' {allowed:.4f}"
    assert all(len(answer.tokens) == len(answers[0].tokens) for answer in answers)


def mean_error(found: list[list[float]], truth: list[list[float]]) -> float:
    pairs = [pair for one, other in zip(found, truth, strict=True) for pair in zip(one, other, strict=True)]
    return sum(abs(mine - exact) for mine, exact in pairs) / len(pairs)
