"""A shape small enough for a CPU, with workloads to match."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.octavo_engine import OctavoEngine
from benchmarks.gpu.shapes import LLAMA_8B, Shape, write_tokenizer
from benchmarks.gpu.workloads import SHARED_PREFIX, Lengths

TINY = Shape(
    "tiny",
    {
        **LLAMA_8B.config,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 96,
        "vocab_size": 4001,
        "bos_token_id": None,
        "eos_token_id": None,
    },
)

TINY_LENGTHS = {
    "W1": [Lengths(9, 5), Lengths(30, 8)],
    "W2": [Lengths(12, 8)],
    "W3": [Lengths(40, 1)] * 2,
    "W4": [Lengths(SHARED_PREFIX + 9, 3)] * 2,
    "W5": [Lengths(10, 9)] * 5,
    "W6": [Lengths(9, 5), Lengths(30, 8), Lengths(4, 1), Lengths(16, 16)] * 4,
}


def load_tiny(folder: Path, options: Mapping[str, Any]) -> OctavoEngine:
    """As the script loads it, with blocks as few as the workloads need."""
    from octavo import LLM

    write_tokenizer(folder, TINY.vocab_size)
    return OctavoEngine(
        LLM(
            model=str(folder),
            load_format="dummy",
            dtype="float32",
            max_model_len=4096,
            num_gpu_blocks_override=600,
            **options,
        )
    )
