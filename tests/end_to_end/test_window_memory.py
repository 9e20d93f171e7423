"""Layers with a window give blocks back: a long text in a pool that could not hold it at full length."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo import LLM, SamplingParams
from octavo.base.errors import OctavoError
from tests.tiny import VOCAB_SIZE, save_model

BLOCK, WINDOW, CHUNK, LENGTH = 16, 24, 32, 600
PATTERN = {"num_hidden_layers": 6, "sliding_window_pattern": 6, "sliding_window": WINDOW}
"""Gemma 3's own: five layers with a window, one without, so six KV groups of one layer."""
NUM_BLOCKS = 1 + -(-(LENGTH + 8) // BLOCK) + 5 * (-(-(WINDOW - 1 + CHUNK) // BLOCK) + 1)


def test_a_long_text_needs_what_the_pattern_needs(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    assert 6 * LENGTH // BLOCK > 3 * NUM_BLOCKS, "full length would be three times as much"
    model = save_model(tmp_path / "model", "gemma3_text", **PATTERN)
    prompt = [(7 * i * i + i) % VOCAB_SIZE for i in range(LENGTH)]
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    options = {"max_num_batched_tokens": CHUNK, "num_gpu_blocks_override": NUM_BLOCKS, "max_model_len": 608}
    with LLM(str(model), **options) as llm:
        [output] = llm.generate([prompt], params, use_tqdm=False)
        assert llm.stats().num_preemptions == 0
    reference = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = output.outputs[0].token_ids
    with torch.inference_mode():
        logits_TV = reference(torch.tensor([prompt + tokens])).logits[0, LENGTH - 1 : -1]
    assert tokens == logits_TV.argmax(-1).tolist()


def test_the_same_pool_refuses_full_length(tmp_path: Path) -> None:
    types = ["full_attention"] * 5 + ["sliding_attention"]
    model = save_model(tmp_path / "model", "gemma3_text", **PATTERN, layer_types=types)
    options = {"max_num_batched_tokens": CHUNK, "num_gpu_blocks_override": NUM_BLOCKS, "max_model_len": 608}
    with (
        LLM(str(model), **options) as llm,
        pytest.raises(OctavoError, match=r"600.*KV cache|600 tokens.*more than"),
    ):
        llm.generate([[5] * LENGTH], SamplingParams(temperature=0, max_tokens=8), use_tqdm=False)
