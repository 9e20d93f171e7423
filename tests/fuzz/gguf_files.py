"""GGUF files for targets: small, honest, of several families and every way of packing."""

from __future__ import annotations

from functools import cache
from random import Random

from octavo.weights.gguf.dequant import BLOCK_TYPES
from tests.weights.crafted import LLAMA_KEYS, Info, gguf_bytes, llama_tensors

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "bert", "qwen3moe", "deepseek2")
WORDS = [
    *(b"general.architecture", b"general.alignment", b"general.name", b"tokenizer.ggml.tokens",
    b"split.count"),
    *(b".block_count", b".attention.head_count_kv", b".attention.key_length", b".rope.scaling.type",
    b".expert_count"),
    *(b"blk.0.attn_q.weight", b"blk.1.ffn_up.bias", b"output.weight", b"token_embd.weight",
    b"rope_freqs.weight"),
    *(family.encode() for family in FAMILIES),
]  # fmt: skip


def whole_model(family: str = "llama") -> bytes:
    """One layer; keys under the family's name, tensors as llama's."""
    keys = {name.replace("llama.", f"{family}."): value for name, value in LLAMA_KEYS.items()}
    keys["general.architecture"] = family
    keys[f"{family}.block_count"] = 1
    return gguf_bytes(keys, llama_tensors(1))


@cache
def packed_in(type_id: int, rows: int = 5, columns: int = 512) -> bytes:
    """One matrix of random blocks, which need not make sense."""
    kind = BLOCK_TYPES[type_id]
    data = Random(type_id).randbytes(rows * columns // kind.block_size * kind.block_bytes)
    matrix = Info("token_embd.weight", (rows, columns), type_id, data)
    return gguf_bytes({"general.architecture": "llama"}, [matrix])
