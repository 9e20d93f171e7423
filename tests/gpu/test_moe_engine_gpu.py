"""Tiny models with experts through the engine on a GPU: transformers' tokens, in graphs and crowds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo import LLM, SamplingParams
from tests.tiny import VOCAB_SIZE, save_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

SIZES = {"hidden_size": 128, "num_attention_heads": 4, "head_dim": 64, "initializer_range": 0.1}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 5, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 9,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 40,
        "shared_expert_intermediate_size": 56,
    },
    "qwen3_moe": {"num_experts": 24, "num_experts_per_tok": 4, "moe_intermediate_size": 40},
    "gpt_oss": {"num_local_experts": 6, "num_experts_per_tok": 2, "sliding_window": 32},
}
PARAMS = SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True, logprobs=1)
OPTIONS: dict[str, Any] = {"max_num_seqs": 40, "max_model_len": 512, "num_blocks": 3000, "dtype": "float32"}
TOLERANCE = 2e-3


def prompts() -> list[list[int]]:
    """So many that steps take every form of the products."""
    source = random.Random(0)
    lengths = [1, 2, 5, 17, 64, 130, 300] + [source.randrange(1, 60) for _ in range(33)]
    return [source.choices(range(VOCAB_SIZE), k=length) for length in lengths]


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path / "model", family, **SIZES, **FAMILIES[family])
    with LLM(str(folder), **OPTIONS) as llm:
        crowd = llm.generate(prompts(), PARAMS, use_tqdm=False)
        alone = llm.generate(prompts()[4], PARAMS, use_tqdm=False)[0]
    reference = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for output in [*crowd, alone]:
        sample = output.outputs[0]
        ids = torch.tensor([output.prompt_token_ids + sample.token_ids])
        with torch.inference_mode():
            logits_TV = reference(ids).logits[0, len(output.prompt_token_ids) - 1 : -1]
        expected = logits_TV.log_softmax(-1)
        for position, token in enumerate(sample.token_ids):
            assert expected[position].max() - expected[position, token] < TOLERANCE
            assert abs(sample.logprobs[position][token].logprob - expected[position, token]) < TOLERANCE


def test_nothing_is_compiled_while_graphs_are_captured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be lost work in a capture, or end it."""
    import triton

    from octavo.worker.graphs import StepGraphs

    folder = save_model(tmp_path / "model", "qwen3_moe", **SIZES, **FAMILIES["qwen3_moe"])
    is_capturing, compiled = [False], []
    capture = StepGraphs.capture_next

    def watched(graphs: StepGraphs) -> None:
        is_capturing[0] = True
        try:
            capture(graphs)
        finally:
            is_capturing[0] = False

    def listen(*, src: Any, **_: Any) -> None:
        if is_capturing[0]:
            compiled.append(str(getattr(src, "name", src)))

    monkeypatch.setattr(StepGraphs, "capture_next", watched)
    monkeypatch.setattr(triton.knobs.compilation, "listener", listen)
    # Other sizes of batches and budgets than the test above has, so that other kernels would be missing.
    options = {**OPTIONS, "max_num_seqs": 300, "max_num_batched_tokens": 2048, "graph_capture": "start"}
    with LLM(str(folder), **options) as llm:
        llm.generate(prompts()[:3], PARAMS, use_tqdm=False)
    assert compiled == []


def test_deterministic_alone_as_in_a_crowd(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "qwen2_moe", **SIZES, **FAMILIES["qwen2_moe"])
    with LLM(str(folder), deterministic=True, **{**OPTIONS, "dtype": "bfloat16"}) as llm:
        crowd = llm.generate(prompts(), PARAMS, use_tqdm=False)
        llm.reset_prefix_cache()
        for number in (0, 3, 6, 20):
            alone = llm.generate(prompts()[number], PARAMS, use_tqdm=False)[0].outputs[0]
            together = crowd[number].outputs[0]
            assert alone.token_ids == together.token_ids
            assert alone.cumulative_logprob == together.cumulative_logprob
