"""Models of transformers on a GPU: as on the CPU, in graphs where they can be captured, else without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo import LLM, SamplingParams
from tests.conformance.fallback import FALLBACK
from tests.conformance.test_generation import load_reference, prompts
from tests.tiny import save_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

TOLERANCES = {"float32": 2e-3, "bfloat16": 0.6}
"""Of log-probabilities; narrow types round in every layer of these random models."""
WITHOUT_GRAPHS = "cannot be captured"


def served(folder: Path, **options: Any) -> list[Any]:
    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=1)
    with LLM(str(folder), max_model_len=648, model_impl="transformers", num_blocks=600, **options) as llm:
        return llm.generate(prompts(), params, use_tqdm=False)


def check(folder: Path, outputs: list[Any], tolerance: float) -> None:
    """The reference runs over the tokens that were chosen, so that a close call changes nothing after it."""
    reference = load_reference(folder)
    for output in outputs:
        sample = output.outputs[0]
        ids = torch.tensor([output.prompt_token_ids + sample.token_ids])
        with torch.inference_mode():
            logits_TV = reference(ids).logits[0, len(output.prompt_token_ids) - 1 : -1]
        expected_TV = logits_TV.log_softmax(-1)
        for position, token in enumerate(sample.token_ids):
            ours = sample.logprobs[position][token].logprob
            assert abs(ours - expected_TV[position, token].item()) < tolerance


@pytest.mark.parametrize("case", ["cohere2", "gemma3, forced", "nemotron", "starcoder2"])
def test_dense_models_run_in_graphs(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    family, overrides = FALLBACK[case]
    folder = save_model(tmp_path, family, **overrides)
    for dtype, tolerance in TOLERANCES.items():
        with caplog.at_level(logging.WARNING):
            check(folder, served(folder, dtype=dtype), tolerance)
    assert WITHOUT_GRAPHS not in caplog.text


@pytest.mark.parametrize("case", ["olmoe", "gpt_oss", "ernie4_5_moe"])
def test_experts(case: str, tmp_path: Path) -> None:
    family, overrides = FALLBACK[case]
    folder = save_model(tmp_path, family, **overrides)
    check(folder, served(folder, dtype="float32"), TOLERANCES["float32"])


def test_a_model_that_waits_for_the_device_is_served_without_graphs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.cohere.modeling_cohere import CohereMLP

    folder = save_model(tmp_path, "cohere")
    plain = CohereMLP.forward
    monkeypatch.setattr(CohereMLP, "forward", lambda self, x: plain(self, x) * x.abs().max().gt(-1).item())
    with caplog.at_level(logging.WARNING):
        check(folder, served(folder, dtype="float32"), TOLERANCES["float32"])
    assert WITHOUT_GRAPHS in caplog.text
