"""GGUF files of tiny models against transformers on the checkpoint they were made from, float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_families import CASES, save

from octavo import LLM, SamplingParams
from octavo.base.native import native_kernels
from octavo.config.packable import PACKED

TOLERANCE = 1e-3
PROMPT = [(7 * index) % 251 for index in range(40)]


def prompt_logprobs(file: Path, **options: Any) -> list[float]:
    """Of each token of the prompt but the first."""
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, ignore_eos=True)
    with LLM(str(file), skip_tokenizer_init=True, max_model_len=64, dtype="float32", **options) as llm:
        (output,) = llm.generate([PROMPT], params, use_tqdm=False)
    return [each[token].logprob for each, token in zip(output.prompt_logprobs[1:], PROMPT[1:], strict=True)]


def expected_logprobs(model: Path) -> list[float]:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        logprobs_TV = reference(torch.tensor([PROMPT])).logits[0].log_softmax(-1)
    return logprobs_TV[:-1].gather(1, torch.tensor(PROMPT[1:])[:, None])[:, 0].tolist()


@pytest.mark.parametrize(("architecture", "variant"), CASES)
def test_equals_transformers(tmp_path: Path, architecture: str, variant: str) -> None:
    model, file = save(tmp_path, architecture, variant)
    expected = expected_logprobs(model)
    assert prompt_logprobs(file) == pytest.approx(expected, abs=TOLERANCE)
    (name,) = json.loads((model / "config.json").read_text())["architectures"]
    if native_kernels() is not None and name in PACKED:
        assert prompt_logprobs(file, packed_weights=True) == pytest.approx(expected, abs=TOLERANCE)
