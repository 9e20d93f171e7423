"""Model files made byte by byte, so that tests can make them lie; and honest tiny ones beside."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def typed(value: Any) -> bytes:
    """A metadata value with its type id, the way converters write it."""
    match value:
        case bytes():
            return value  # already encoded by the test
        case bool():
            return struct.pack("<I?", BOOL, value)
        case int():
            return struct.pack("<II", U32, value)
        case float():
            return struct.pack("<If", F32, value)
        case str():
            return struct.pack("<I", STRING) + text(value)
        case list():
            items = [typed(item) for item in value]
            kind = items[0][:4] if items else struct.pack("<I", U32)
            return (
                struct.pack("<I", ARRAY)
                + kind
                + struct.pack("<Q", len(items))
                + b"".join(i[4:] for i in items)
            )
    raise AssertionError(value)


@dataclass
class Info:
    """One entry of a GGUF file's tensor list. Offset and data are filled in unless given."""

    name: str
    shape: tuple[int, ...]  # as torch has it
    type_id: int = 0
    data: bytes | None = None
    offset: int | None = None
    num_dimensions: int | None = None


ITEM_BYTES = {0: 4, 1: 2, 30: 2}


def gguf_bytes(
    keys: Mapping[str, Any] | list[tuple[str, Any]],
    tensors: list[Info],
    *,
    version: int = 3,
    num_tensors: int | None = None,
    num_keys: int | None = None,
    alignment: int = 32,
    magic: bytes = b"GGUF",
) -> bytes:
    pairs = list(keys.items()) if isinstance(keys, Mapping) else keys
    header = magic + struct.pack(
        "<IQQ",
        version,
        len(tensors) if num_tensors is None else num_tensors,
        len(pairs) if num_keys is None else num_keys,
    )
    header += b"".join(text(key) + typed(value) for key, value in pairs)
    body = b""
    for info in tensors:
        data = info.data
        if data is None:
            size = int(np.prod(info.shape)) * ITEM_BYTES[info.type_id]
            data = np.random.default_rng(len(body)).integers(0, 64, size, dtype=np.uint8).tobytes()
        offset = len(body) if info.offset is None else info.offset
        dimensions = len(info.shape) if info.num_dimensions is None else info.num_dimensions
        header += text(info.name) + struct.pack("<I", dimensions)
        header += struct.pack(f"<{len(info.shape)}Q", *(size % 2**64 for size in info.shape[::-1]))
        header += struct.pack("<IQ", info.type_id, offset % 2**64)
        body += data + b"\0" * (-len(data) % alignment)
    return header + b"\0" * (-len(header) % alignment) + body


HIDDEN, MIDDLE, HEADS, KV_HEADS, VOCAB, LAYERS = 32, 64, 4, 2, 40, 2

LLAMA_KEYS: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": LAYERS,
    "llama.context_length": 128,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": MIDDLE,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": [f"t{index}" for index in range(VOCAB)],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.add_bos_token": True,
}


def llama_tensors(layers: int = LAYERS) -> list[Info]:
    head_dim = HIDDEN // HEADS
    tensors = [Info("token_embd.weight", (VOCAB, HIDDEN)), Info("output_norm.weight", (HIDDEN,))]
    for index in range(layers):
        tensors += [
            Info(f"blk.{index}.attn_norm.weight", (HIDDEN,)),
            Info(f"blk.{index}.attn_q.weight", (HEADS * head_dim, HIDDEN), 1),
            Info(f"blk.{index}.attn_k.weight", (KV_HEADS * head_dim, HIDDEN)),
            Info(f"blk.{index}.attn_v.weight", (KV_HEADS * head_dim, HIDDEN)),
            Info(f"blk.{index}.attn_output.weight", (HIDDEN, HEADS * head_dim)),
            Info(f"blk.{index}.ffn_norm.weight", (HIDDEN,)),
            Info(f"blk.{index}.ffn_gate.weight", (MIDDLE, HIDDEN), 30),
            Info(f"blk.{index}.ffn_up.weight", (MIDDLE, HIDDEN)),
            Info(f"blk.{index}.ffn_down.weight", (HIDDEN, MIDDLE)),
        ]
    return tensors


def changed(tensors: list[Info], name: str, **values: Any) -> list[Info]:
    """The tensors with one of them altered."""
    assert any(info.name == name for info in tensors), name
    return [Info(**(vars(info) | values)) if info.name == name else info for info in tensors]


def write_gguf(path: Path, keys: Mapping[str, Any] | None = None, tensors: list[Info] | None = None) -> Path:
    path.write_bytes(gguf_bytes(keys or LLAMA_KEYS, tensors or llama_tensors()))
    return path


def safetensors_bytes(header: Any, data: bytes, *, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


TINY_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": MIDDLE,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "dtype": "float32",
}


def write_config(folder: Path, **changes: Any) -> None:
    (folder / "config.json").write_text(json.dumps(TINY_CONFIG | changes))
