"""Tiny random models of every family, the whole engine in every mode, against transformers in float32."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from octavo.base.native import native_kernels
from octavo.config.native_families import NATIVE
from octavo.messages.result import CoreStats
from octavo.weights.recurrent import recurrent_facts
from tests.conformance.families import FAMILIES
from tests.tiny import VOCAB_SIZE, save_model

TOLERANCE = 1e-4
RECURRENT_TOLERANCE = 1e-3
"""By so much transformers differs from itself where a recurrence is cut into chunks of another size."""
NUM_TOKENS = 40
MAX_MODEL_LEN = 648

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no prefix cache": {"enable_prefix_caching": False},
    "chunked": {"max_num_batched_tokens": 32},
    "small blocks": {"block_size": 4},
    "preempting": {"num_gpu_blocks_override": 16, "max_num_seqs": 24},
    "preempting, chunked, no prefix cache": {
        "num_gpu_blocks_override": 16,
        "max_num_seqs": 24,
        "max_num_batched_tokens": 32,
        "enable_prefix_caching": False,
    },
    "whole prompts only": {"enable_chunked_prefill": False},
    "chunked, small blocks": {"max_num_batched_tokens": 32, "block_size": 4},
    "torch": {"native_kernels": False},
    "torch, chunked, small blocks": {
        "native_kernels": False,
        "max_num_batched_tokens": 32,
        "block_size": 4,
    },
    "by priority": {"scheduling_policy": "priority"},
}


def prompts(longest: int = 600) -> list[list[int]]:
    """Lengths from 1 up, many with a shared beginning, some longer than any window."""
    source = random.Random(3)
    shared = [source.randrange(VOCAB_SIZE) for _ in range(70)]
    lengths = [1, 2, 15, 16, 17, 33, 64, 90, 150, longest]
    fresh = [[source.randrange(VOCAB_SIZE) for _ in range(length)] for length in lengths]
    sharing = [[*shared[: 20 + 5 * i], source.randrange(VOCAB_SIZE)] for i in range(10)]
    return fresh + sharing


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    family, overrides = FAMILIES[request.param]
    return save_model(tmp_path_factory.mktemp("model"), family, **overrides)


def num_kv_groups(model: Path) -> int:
    """A request holds so many times the blocks."""
    config = json.loads((model / "config.json").read_text())
    kinds = [kind for kind in config.get("layer_types") or ["full_attention"] if kind.endswith("_attention")]
    counts = Counter(kind for kind in kinds if kind != "linear_attention").values()
    return sum(-(-count // min(counts)) for count in counts)


@pytest.fixture(scope="module")
def reference(model: Path) -> Any:
    return load_reference(model)


def load_reference(model: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    # Eager attention is the one that honours sliding windows on every version; but Falcon's adds its linear
    # biases a second time.
    has_biases = json.loads((model / "config.json").read_text()).get("alibi")
    return AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, attn_implementation="sdpa" if has_biases else "eager"
    ).eval()


def tolerance_of(reference: Any) -> float:
    return RECURRENT_TOLERANCE if keeps_state(reference.config.to_dict()) else TOLERANCE


def keeps_state(config: dict[str, Any]) -> bool:
    return recurrent_facts(config).state_bytes > 0


def check(reference: Any, outputs: list[Any], tolerance: float | None = None) -> None:
    """Every token is the reference's argmax after those before it, with the same log-probability."""
    import torch

    tolerance = tolerance or tolerance_of(reference)
    for output in outputs:
        sample = output.outputs[0]
        ids = torch.tensor([output.prompt_token_ids + sample.token_ids])
        with torch.inference_mode():
            logits_TV = reference(ids).logits[0, len(output.prompt_token_ids) - 1 : -1]
        assert sample.token_ids == logits_TV.argmax(-1).tolist()
        expected = logits_TV.log_softmax(-1)
        for position, token_id in enumerate(sample.token_ids):
            ours = sample.logprobs[position][token_id].logprob
            assert abs(ours - expected[position, token_id].item()) < tolerance


def run(model: Path, one_by_one: bool = False, **options: Any) -> tuple[list[Any], CoreStats]:
    params = SamplingParams(temperature=0, max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=1)
    given = prompts()
    if "num_gpu_blocks_override" in options:
        given = prompts(longest=150)  # so that all have room, but not together
        options["num_gpu_blocks_override"] *= num_kv_groups(model)
    with LLM(str(model), max_model_len=MAX_MODEL_LEN, **options) as llm:
        if one_by_one:
            outputs = [llm.generate(prompt, params, use_tqdm=False)[0] for prompt in given]
        else:
            outputs = llm.generate(given, params, use_tqdm=False)
        return outputs, llm.stats()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_transformers(model: Path, reference: Any, mode: str) -> None:
    outputs, stats = run(model, **MODES[mode])
    check(reference, outputs)
    if "preempting" in mode and recurrent_facts(reference.config.to_dict()).num_attention_layers:
        assert stats.num_preemptions > 0, "the pool was too large for this test to say anything"


@pytest.mark.skipif(native_kernels() is None, reason="no native kernels were compiled")
def test_keys_and_values_may_be_int8(model: Path) -> None:
    assert json.loads((model / "config.json").read_text())["architectures"][0] in NATIVE
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    with LLM(str(model), max_model_len=64, kv_cache_dtype="int8") as llm:
        (output,) = llm.generate(prompts()[5], params, use_tqdm=False)
    assert len(output.outputs[0].token_ids) == 3


def test_one_by_one_equals_transformers(model: Path, reference: Any) -> None:
    outputs, stats = run(model, one_by_one=True)
    check(reference, outputs)
    assert (stats.prefix_hits_tokens == 0) is keeps_state(reference.config.to_dict())


def test_prompt_logprobs_equal_transformers_even_when_chunked(model: Path, reference: Any) -> None:
    check_prompt_logprobs(model, reference)


def check_prompt_logprobs(model: Path, reference: Any, **options: Any) -> None:
    import torch

    params = SamplingParams(temperature=0, max_tokens=2, prompt_logprobs=0, ignore_eos=True)
    with LLM(str(model), max_model_len=MAX_MODEL_LEN, max_num_batched_tokens=32, **options) as llm:
        outputs = llm.generate(prompts()[2:] * 2, params, use_tqdm=False)
    for output in outputs:
        ids = output.prompt_token_ids
        with torch.inference_mode():
            expected = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert output.prompt_logprobs[0] is None
        assert len(output.prompt_logprobs) == len(ids)
        for index, token in enumerate(ids[1:]):
            ours = output.prompt_logprobs[index + 1][token].logprob
            assert abs(ours - expected[index, token].item()) < tolerance_of(reference)
