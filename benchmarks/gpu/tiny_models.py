"""Tiny random checkpoints of both measured families, made by transformers, with a made-up tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.gpu.shapes import write_tokenizer

VOCAB_SIZE = 1003
"""Odd, so that nothing divides it."""

COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 192,
    "intermediate_size": 416,
    "num_hidden_layers": 4,
    "max_position_embeddings": 2048,
    "bos_token_id": None,
    "eos_token_id": None,
    "initializer_range": 0.15,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 64},
    "qwen3": {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
}


def save_tiny(family: str, folder: Path) -> Path:
    """Returns the folder."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

    kind: Any = {"llama": LlamaConfig, "qwen3": Qwen3Config}[family]
    torch.manual_seed(7)
    make: Any = AutoModelForCausalLM.from_config
    model = make(kind(**COMMON, **FAMILIES[family]))
    model.to(torch.float32).save_pretrained(folder)
    write_tokenizer(folder, VOCAB_SIZE)
    return folder


def load_reference(folder: Path, device: str, dtype: str = "float32") -> Any:
    """transformers' own model, in evaluation mode."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    read: Any = AutoModelForCausalLM.from_pretrained
    # Falcon's eager attention adds its linear biases twice.
    attention = "sdpa" if getattr(AutoConfig.from_pretrained(folder), "alibi", False) else "eager"
    eager = {"attn_implementation": attention, "experts_implementation": "eager"}
    model = read(folder, dtype=getattr(torch, dtype), **eager)
    return model.to(device).eval()


def round_weights(model: Any) -> Any:
    """The same float32 model with weights as bfloat16 stores them. Tables such as rope's stay exact."""
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.to(torch.bfloat16).float())
    return model
