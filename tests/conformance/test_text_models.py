"""Models that see pictures, served for text alone: equal to transformers' whole model on texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from octavo import LLM, SamplingParams
from tests.tiny import VOCAB_SIZE, save_tokenizer

PROMPTS = [[7], list(range(40, 90)), [3, 1, 4, 1, 5, 9, 2, 6] * 12]
TEXT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 258,
    "pad_token_id": None,
}
MROPE = {"rope_type": "default", "rope_theta": 10000.0}
SIGLIP = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
QWEN_SIGHT = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16, "out_hidden_size": 48}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gemma 3": (
        "Gemma3",
        {"sliding_window": 9, "query_pre_attn_scalar": 12, "tie_word_embeddings": True},
        {"vision_config": {**SIGLIP, "image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4},
    ),
    "mistral 3": (
        "Mistral3",
        {"model_type": "mistral", "sliding_window": None},
        {"vision_config": {"model_type": "pixtral", **SIGLIP}, "tie_word_embeddings": False},
    ),
    "qwen 2.5": (
        "Qwen2_5_VL",
        {"rope_parameters": {**MROPE, "mrope_section": [2, 1, 1]}, "head_dim": 8},
        {"vision_config": QWEN_SIGHT, "tie_word_embeddings": False},
    ),
    "qwen 3": (
        "Qwen3VL",
        {"rope_parameters": {**MROPE, "mrope_section": [2, 2, 2]}},
        {"vision_config": {**QWEN_SIGHT, "deepstack_visual_indexes": [0]}, "tie_word_embeddings": False},
    ),
}


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    import torch
    import transformers

    family, text, outer = CASES[request.param]
    config = getattr(transformers, f"{family}Config")(text_config={**TEXT, **text}, **outer)
    config.image_token_id = config.image_token_index = 1
    torch.manual_seed(5)
    whole = getattr(transformers, f"{family}ForConditionalGeneration")(config).eval()
    for name, weight in whole.named_parameters():
        if "norm" in name or name.endswith("bias"):
            weight.data += 0.2 * torch.randn(weight.shape)
    whole.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path, whole


def test_texts_equal_transformers(model: tuple[Path, Any]) -> None:
    import torch

    path, whole = model
    expected = [
        whole.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
        for prompt in PROMPTS
    ]
    with LLM(str(path), dtype="float32") as llm:
        outputs = llm.generate(
            PROMPTS, SamplingParams(temperature=0, max_tokens=12, ignore_eos=True), use_tqdm=False
        )
    for output, tokens, prompt in zip(outputs, expected, PROMPTS, strict=True):
        assert output.outputs[0].token_ids == tokens[0, len(prompt) :].tolist()
