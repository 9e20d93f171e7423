"""Prompts of vectors on a GPU, beside prompts of tokens that run in graphs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from octavo import LLM, SamplingParams
from tests.tiny import VOCAB_SIZE, save_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("overlaps", [True, False])
def test_vectors_answer_as_their_tokens(tmp_path: Path, overlaps: bool) -> None:
    folder = save_model(tmp_path / "model", head_dim=64, hidden_size=128, num_attention_heads=4)
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    source = random.Random(0)
    prompts = [source.choices(range(VOCAB_SIZE), k=length) for length in (1, 5, 17, 64, 130, 300)]
    mixed = [{"prompt_embeds": table[ids]} if index % 2 else ids for index, ids in enumerate(prompts)]
    params = SamplingParams(temperature=0.0, max_tokens=40, ignore_eos=True)
    options = {"max_num_seqs": 8, "num_blocks": 400, "async_scheduling": overlaps, "dtype": "float32"}
    with LLM(str(folder), deterministic=True, enable_prompt_embeds=True, **options) as llm:
        theirs = llm.generate(prompts, params, use_tqdm=False)
        llm.reset_prefix_cache()
        ours = llm.generate(mixed, params, use_tqdm=False)
    assert [o.outputs[0].token_ids for o in ours] == [o.outputs[0].token_ids for o in theirs]
