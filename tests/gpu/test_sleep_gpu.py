"""Sleep on a GPU: its memory is really free, and with graphs captured anew the same tokens come."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from octavo import LLM, SamplingParams

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "torch_dtype": "bfloat16",
}
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, detokenize=False)
PROMPTS = [[7 * i % 32000 for i in range(length)] for length in (3, 40, 700)]


def used_mib() -> float:
    """What this process has of the device: tests beside it use it, too."""
    torch.cuda.synchronize()
    return torch.cuda.memory_reserved() / 2**20


def answers(llm: LLM) -> list[list[int]]:
    return [output.outputs[0].token_ids for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]


def test_memory_is_free_and_the_same_tokens_come(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    options = {"load_format": "dummy", "skip_tokenizer_init": True, "max_num_seqs": 16, "num_blocks": 20_000}
    with LLM(str(tmp_path), **options) as llm:
        before = answers(llm)
        awake = used_mib()
        cache = llm.ready.plan.num_blocks * llm.ready.plan.block_bytes / 2**20
        weights = llm.ready.memory_bytes["weights"] / 2**20
        for level in (1, 2):
            llm.sleep(level)
            freed = awake - used_mib()
            assert freed > 0.95 * (cache + weights), (level, freed, cache, weights)
            llm.wake_up()
            assert answers(llm) == before
            assert used_mib() < awake + 256
