"""Keys and values in every number: whatever the engine does, the answers keep their bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from octavo.base.native import native_kernels
from octavo.messages.kv import KV_DTYPES
from tests.conformance.test_generation import prompts
from tests.tiny import save_model

pytestmark = pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")

HARD = {"num_gpu_blocks_override": 16, "max_num_seqs": 24, "max_num_batched_tokens": 32}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "llama")


def answers(model: Path, params: SamplingParams, **options: Any) -> tuple[list[Any], int]:
    """Tokens and their log-probabilities by prompt, and how often one was preempted."""
    with LLM(str(model), max_model_len=648, packed_weights=True, **options) as llm:
        outputs = llm.generate(prompts(longest=150), params, use_tqdm=False)
        found = [(output.outputs[0].token_ids, output.outputs[0].logprobs) for output in outputs]
        return found, llm.stats().num_preemptions


@pytest.mark.parametrize("kv_dtype", KV_DTYPES)
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_preempted_chunked_and_cached_answers_have_the_same_bits(
    model: Path, kv_dtype: str, temperature: float
) -> None:
    params = SamplingParams(
        temperature=temperature, top_p=0.95, seed=7, max_tokens=40, ignore_eos=True, logprobs=1
    )
    plain, _ = answers(model, params, kv_cache_dtype=kv_dtype, enable_prefix_caching=False)
    hard, num_preemptions = answers(model, params, kv_cache_dtype=kv_dtype, **HARD)
    assert num_preemptions > 0
    assert hard == plain
