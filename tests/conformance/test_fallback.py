"""Models through the transformers fallback, the whole engine in every mode, against transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.fallback import FALLBACK
from tests.conformance.test_generation import MODES, check, check_prompt_logprobs, load_reference, run
from tests.tiny import save_model

TOLERANCE = 3e-4
"""Experts are added up in another order than the reference does; gpt_oss differs by up to 1.1e-4."""
EVERYTHING = {
    "num_gpu_blocks_override": 32,
    "max_num_seqs": 24,
    "max_num_batched_tokens": 48,
    "block_size": 8,
}
"""Chunks, hits in the cache and preemption in one run."""


@pytest.fixture(scope="module", params=list(FALLBACK))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, overrides = FALLBACK[request.param]
    return save_model(tmp_path_factory.mktemp("model"), family, **overrides)


@pytest.fixture(scope="module")
def reference(model: Path) -> Any:
    return load_reference(model)


def run_fallback(model: Path, **options: Any) -> Any:
    return run(model, model_impl="transformers", **options)


def test_plain_equals_transformers(model: Path, reference: Any) -> None:
    outputs, stats = run_fallback(model)
    check(reference, outputs, TOLERANCE)
    assert stats.prefix_hits_tokens > 0


def test_everything_at_once_equals_transformers(model: Path, reference: Any) -> None:
    outputs, stats = run_fallback(model, **EVERYTHING)
    check(reference, outputs, TOLERANCE)
    assert stats.num_preemptions > 0, "the pool was too large for this test to say anything"


@pytest.mark.slow
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "plain"])
def test_every_mode_equals_transformers(model: Path, reference: Any, mode: str) -> None:
    outputs, stats = run_fallback(model, **MODES[mode])
    check(reference, outputs, TOLERANCE)
    if "preempting" in mode:
        assert stats.num_preemptions > 0


@pytest.mark.slow
def test_one_by_one_equals_transformers(model: Path, reference: Any) -> None:
    outputs, _ = run_fallback(model, one_by_one=True)
    check(reference, outputs, TOLERANCE)


@pytest.mark.slow
def test_prompt_logprobs_equal_transformers_even_when_chunked(model: Path, reference: Any) -> None:
    check_prompt_logprobs(model, reference, model_impl="transformers")
