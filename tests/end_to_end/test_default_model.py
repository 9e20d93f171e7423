"""The default model, through every mode of the engine, against Hugging Face transformers in float32.

A greedy continuation equals the reference exactly when each of its tokens is the reference's argmax after the
tokens before it. So the reference runs once over prompt + continuation instead of generating itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from octavo import LLM, RequestOutput, SamplingParams
from tests.end_to_end.prompts import comparison_prompts
from tests.end_to_end.server_process import serving
from tests.reference import load_reference

pytestmark = pytest.mark.real

LOGPROB_TOLERANCE = 1e-3

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no prefix cache": {"enable_prefix_caching": False},
    "chunked": {"max_num_batched_tokens": 32},
    "preempting": {"num_gpu_blocks_override": 48, "max_num_seqs": 16},
    "chunked, preempting, no cache": {
        "max_num_batched_tokens": 32,
        "num_gpu_blocks_override": 48,
        "enable_prefix_caching": False,
        "max_num_seqs": 16,
    },
}


@pytest.fixture(scope="module")
def reference(default_model_path: Path) -> Any:
    """transformers' Llama on the file's tensors; tests/weights compares those with its own reading."""
    return load_reference(default_model_path)


def check(reference: Any, outputs: list[RequestOutput]) -> None:
    for output in outputs:
        sample = output.outputs[0]
        assert sample.logprobs is not None
        logprobs = [
            position[token].logprob for position, token in zip(sample.logprobs, sample.token_ids, strict=True)
        ]
        check_greedy(reference, output.prompt_token_ids, sample.token_ids, logprobs)


def check_greedy(reference: Any, prompt: list[int], token_ids: list[int], logprobs: list[float]) -> None:
    import torch

    with torch.inference_mode():
        logits_TV = reference(torch.tensor([prompt + token_ids])).logits[0, len(prompt) - 1 : -1]
    assert token_ids == logits_TV.argmax(-1).tolist()
    expected = logits_TV.log_softmax(-1)
    for position, token_id in enumerate(token_ids):
        assert abs(logprobs[position] - expected[position, token_id].item()) < LOGPROB_TOLERANCE


def run(path: Path, count: int, num_tokens: int, **options: Any) -> tuple[LLM, list[RequestOutput]]:
    params = SamplingParams(temperature=0, max_tokens=num_tokens, ignore_eos=True, logprobs=1)
    with LLM(str(path), dtype="float32", max_model_len=1024, **options) as llm:
        return llm, llm.generate(comparison_prompts(count), params, use_tqdm=False)


def test_greedy_equals_transformers(reference: Any, default_model_path: Path) -> None:
    _, outputs = run(default_model_path, count=8, num_tokens=24)
    check(reference, outputs)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_equals_transformers(reference: Any, default_model_path: Path, mode: str) -> None:
    llm, outputs = run(default_model_path, count=32, num_tokens=64, **MODES[mode])
    check(reference, outputs)
    if "preempting" in mode:
        assert llm.stats().num_preemptions > 0, "the pool was too large for this test to say anything"


@pytest.mark.slow
def test_one_by_one_equals_transformers(reference: Any, default_model_path: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, logprobs=1)
    with LLM(str(default_model_path), dtype="float32", max_model_len=1024) as llm:
        outputs = [llm.generate(p, params, use_tqdm=False)[0] for p in comparison_prompts(32)]
    check(reference, outputs)


@pytest.mark.slow
def test_the_server_equals_transformers(reference: Any, default_model_path: Path, tmp_path: Path) -> None:
    body = {
        "prompt": comparison_prompts(32),
        "max_tokens": 64,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": 1,
        "return_token_ids": True,
    }
    flags = ("--dtype", "float32", "--max-model-len", "1024", "--max-num-batched-tokens", "96")
    with serving(default_model_path, *flags, log=tmp_path / "log") as server:
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=600).json()
    assert len(answer["choices"]) == 32
    for choice in answer["choices"]:
        logprobs = choice["logprobs"]["token_logprobs"]
        check_greedy(reference, choice["prompt_token_ids"], choice["token_ids"], logprobs)


def test_a_repeated_prompt_is_served_from_the_cache(default_model_path: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=8)
    prompt = comparison_prompts(2)[1]
    with LLM(str(default_model_path), max_model_len=512) as llm:
        first = llm.generate(prompt, params, use_tqdm=False)[0]
        again = llm.generate(prompt, params, use_tqdm=False)[0]
    assert first.num_cached_tokens == 0
    assert again.num_cached_tokens >= 16
    assert again.outputs[0].token_ids == first.outputs[0].token_ids


def test_chat_uses_the_template(default_model_path: Path) -> None:
    with LLM(str(default_model_path), max_model_len=512) as llm:
        output = llm.chat(
            [{"role": "user", "content": "What is the capital of France? One word."}],
            SamplingParams(temperature=0, max_tokens=24),
            use_tqdm=False,
        )[0]
    assert "Paris" in output.outputs[0].text
    assert output.outputs[0].finish_reason == "stop"
    assert "<|im_end|>" not in output.outputs[0].text
