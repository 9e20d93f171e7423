"""Every decoder of Octavo's own, pooled: bare, with a head for labels, and as it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from octavo import LLM
from octavo.base.errors import ConfigError, ModelFileError
from octavo.cli.main import main
from octavo.messages.pooling import PoolingParams
from tests.conformance.fallback import FALLBACK
from tests.conformance.families import FAMILIES
from tests.conformance.test_pooling import RAW, check
from tests.tiny import save_tokenizer, tiny_config

PROMPTS = [[20 + 3 * i for i in range(length)] for length in (1, 9, 40)]
TOLERANCE = 2e-4
"""Recurrences add in another order than transformers' chunks."""
LONG_ROPE = "phi3, long longrope, half rotated"
"""Turns short texts too by the factors for long ones: docs/decisions/0009."""


def save(folder: Path, name: str, kind: Any, **entries: Any) -> Any:
    """The model of transformers whose files these are."""
    family, overrides = {**FALLBACK, **FAMILIES}[name]
    torch.manual_seed(7)
    config = tiny_config(family, **overrides, **entries)
    # transformers' eager Falcon adds its linear biases twice: to the mask, and to the scores.
    way = "sdpa" if getattr(config, "alibi", False) else "eager"
    model = kind.from_config(config, attn_implementation=way).to(torch.float32).eval()
    for tensor_name, weight in model.named_parameters():
        if tensor_name.endswith("bias"):
            weight.data += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != LONG_ROPE])
def test_every_decoder_can_be_pooled(tmp_path: Path, name: str) -> None:
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    for kind in (AutoModel, AutoModelForCausalLM):
        folder = tmp_path / kind.__name__
        model = save(folder, name, kind).base_model
        with torch.inference_mode():
            expected = [model(torch.tensor([ids])).last_hidden_state[0] for ids in PROMPTS]
        with LLM(str(folder), runner="pooling", max_model_len=64, max_num_batched_tokens=32) as llm:
            check(llm.encode(PROMPTS, RAW, use_tqdm=False), [one[-1] for one in expected], TOLERANCE)
            tokens = llm.encode(PROMPTS, pooling_task="token_embed", pooling_params=RAW, use_tqdm=False)
            check(tokens, expected, TOLERANCE)
    kind = AutoModelForSequenceClassification
    try:
        model = save(tmp_path / "head", name, kind, num_labels=3)
    except ValueError as error:
        assert "Unrecognized configuration class" in str(error)  # transformers has no such head for it
        return
    with torch.inference_mode():
        expected = [model(torch.tensor([ids])).logits[0] for ids in PROMPTS]
    with LLM(str(tmp_path / "head"), max_model_len=64) as llm:
        check(llm.encode(PROMPTS, PoolingParams(use_activation=False), use_tqdm=False), expected, TOLERANCE)


@pytest.mark.parametrize("name", ["apertus", "biogpt", "cohere2", "qwen3"])
def test_decoders_of_transformers_embed_too(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    model = save(tmp_path, name, AutoModelForCausalLM).base_model
    with torch.inference_mode():
        expected = [model(torch.tensor([ids])).last_hidden_state[0] for ids in PROMPTS]
    options: dict[str, Any] = {"runner": "pooling", "max_model_len": 64, "max_num_batched_tokens": 32}
    asked = ["--model-impl", "transformers"] if name in FAMILIES else []
    options |= {"model_impl": "transformers"} if asked else {}
    with LLM(str(tmp_path), **options) as llm:
        check(llm.encode(PROMPTS, RAW, use_tqdm=False), [one[-1] for one in expected], TOLERANCE)
    with LLM(str(tmp_path), pooling_type="mean", **options) as llm:
        check(llm.encode(PROMPTS, RAW, use_tqdm=False), [one.mean(0) for one in expected], TOLERANCE)
    assert main(["explain", str(tmp_path), "--runner", "pooling", *asked]) == 0
    assert "its hidden states are pooled" in capsys.readouterr().out
    with pytest.raises(
        (ConfigError, ModelFileError), match=r"can be pooled|models that score are Octavo's own"
    ):
        LLM(str(tmp_path), **options, hf_overrides={"classifier_from_token": ["a", "b"]})
    if not asked:
        with pytest.raises(ModelFileError, match="can be pooled"):
            LLM(str(tmp_path), **options, model_impl="octavo")
