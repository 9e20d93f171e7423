"""Models of transformers on a GPU: as on the CPU, in graphs where they can be captured, else without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.tiny_models import load_reference, round_weights
from octavo import LLM, SamplingParams
from tests.conformance.fallback import FALLBACK
from tests.conformance.test_generation import prompts
from tests.tiny import save_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOLERANCE = 2e-3
"""Of log-probabilities in float32."""
WITHOUT_GRAPHS = "cannot be captured"


def served(folder: Path, **options: Any) -> list[Any]:
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=1)
    with LLM(str(folder), max_model_len=648, model_impl="transformers", num_blocks=600, **options) as llm:
        return llm.generate(prompts(), params, use_tqdm=False)


def errors(outputs: list[Any], reference: Any) -> torch.Tensor:
    """Of all log-probabilities. The reference runs over the tokens that were chosen, so that a close call
    changes nothing after it.
    """
    ours = [step[token].logprob for output in outputs for step, token in chosen(output)]
    return (torch.tensor(ours) - torch.cat([logprobs(reference, output) for output in outputs])).abs()


def chosen(output: Any) -> list[tuple[Any, int]]:
    sample = output.outputs[0]
    return list(zip(sample.logprobs, sample.token_ids, strict=True))


def logprobs(reference: Any, output: Any) -> torch.Tensor:
    """The reference's, of the tokens that were chosen."""
    prompt, tokens = output.prompt_token_ids, output.outputs[0].token_ids
    ids = torch.tensor([prompt + tokens], device=reference.device)
    with torch.inference_mode():
        logits_TV = reference(ids).logits[0, len(prompt) - 1 : -1].float()
    return logits_TV.log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0].cpu()


def check_float32(folder: Path, outputs: list[Any]) -> None:
    assert errors(outputs, load_reference(folder, "cpu")).max() < TOLERANCE


def check_bfloat16(folder: Path, outputs: list[Any]) -> None:
    """No further from float32 than transformers' bfloat16 is, on average."""
    exact, narrow = round_weights(load_reference(folder, "cuda")), load_reference(folder, "cuda", "bfloat16")
    theirs = torch.cat([(logprobs(narrow, output) - logprobs(exact, output)).abs() for output in outputs])
    assert errors(outputs, exact).mean() <= 1.5 * theirs.mean() + 2e-3


@pytest.mark.parametrize("case", ["cohere2", "gemma3, forced", "nemotron", "starcoder2"])
def test_dense_models_run_in_graphs(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    family, overrides = FALLBACK[case]
    folder = save_model(tmp_path, family, **overrides)
    with caplog.at_level(logging.WARNING):
        check_float32(folder, served(folder, dtype="float32"))
        check_bfloat16(folder, served(folder, dtype="bfloat16"))
    assert WITHOUT_GRAPHS not in caplog.text


@pytest.mark.parametrize("case", ["olmoe", "gpt_oss", "ernie4_5_moe"])
def test_experts(case: str, tmp_path: Path) -> None:
    family, overrides = FALLBACK[case]
    folder = save_model(tmp_path, family, **overrides)
    check_float32(folder, served(folder, dtype="float32"))


def test_a_model_that_waits_for_the_device_is_served_without_graphs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.cohere.modeling_cohere import CohereMLP

    folder = save_model(tmp_path, "cohere")
    plain = CohereMLP.forward

    def waits(self: Any, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = plain(self, x)
        return y if x.is_meta else y * x.abs().max().gt(-1).item()

    monkeypatch.setattr(CohereMLP, "forward", waits)
    with caplog.at_level(logging.WARNING):
        check_float32(folder, served(folder, dtype="float32"))
    assert WITHOUT_GRAPHS in caplog.text
