"""Files that lie, and the words that the refusal of each must hold: for the tests of single readers, and for
the rows of the list of attacks, which load them as a server does.
"""

from __future__ import annotations

import struct
from typing import Any

from tests.weights.crafted import (
    ARRAY,
    BOOL,
    STRING,
    TINY_CONFIG,
    U32,
    text,
)


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    """One tensor in a safetensors header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SMALL = {"__metadata__": {"format": "pt"}, "a": entry([2, 2], 0, 16), "b": entry([3], 16, 22, "BF16")}
"""An honest safetensors header, for 22 bytes of data."""
HEADER_LENGTHS = [0, 1, 10**6, 2**31, 2**63, 2**64 - 1]

SAFETENSORS_HEADERS: list[tuple[Any, list[str]]] = [
    (b"[]", ["JSON object"]),
    (b"{", ["JSON"]),
    (b"\xff{}", ["not a JSON object"]),
    (b'{"a\xff": 1}', ["UTF-8"]),
    (b'{"a":' * 100_000, ["deep"]),
    (b'{"a": {"dtype":"F32","shape":[%s],"data_offsets":[0,22]}}' % (b"9" * 5000), ["JSON"]),
    (b'{"a": 1, "a": 2}', ["'a'", "twice"]),
    (b'{"a": {"dtype":"U8","dtype":"U8","shape":[22],"data_offsets":[0,22]}}', ["dtype", "twice"]),
    ({"a": 1}, ["'a'"]),
    ({"a": entry([2, 2], 0, 16) | {"more": 1}}, ["'a'"]),
    ({"a": entry([22], 0, 22, "Q4")}, ["'a'", "Q4"]),
    ({"a": entry([22], 0, 22, ["U8"])}, ["'a'"]),
    ({"a": entry([21], 0, 22, "U8")}, ["'a'", "22", "21"]),
    ({"a": entry([-22], 0, 22, "U8")}, ["'a'"]),
    ({"a": entry([22.0], 0, 22, "U8")}, ["'a'"]),
    ({"a": entry([True, 22], 0, 22, "U8")}, ["'a'"]),
    ({"a": entry([2**62, 2**62], 0, 22, "U8")}, ["'a'"]),
    ({"a": entry([1] * 9 + [22], 0, 22, "U8")}, ["'a'"]),
    ({"a": entry([22], 22, 0, "U8")}, ["'a'"]),
    ({"a": entry([22], 10, 32, "U8")}, ["'a'", "gap"]),
    ({"a": entry([30], 0, 30, "U8")}, ["'a'", "truncated"]),
    ({"a": entry([10], 0, 10, "U8"), "b": entry([12], 8, 20, "U8")}, ["'b'", "overlaps"]),
    ({"a": entry([10], 0, 10, "U8"), "b": entry([10], 12, 22, "U8")}, ["'b'", "gap"]),
    ({"a": entry([10], 0, 10, "U8")}, ["12 bytes"]),
    ({}, ["22 bytes"]),
    ({"nul\0": entry([22], 0, 22, "U8")}, ["name"]),
    ({"": entry([22], 0, 22, "U8")}, ["name"]),
    ({"__proto__": entry([22], 0, 22, "U8")}, ["__proto__"]),
    ({"__metadata__": {"a": 1}, "a": entry([22], 0, 22, "U8")}, ["__metadata__"]),
    ({"__metadata__": [], "a": entry([22], 0, 22, "U8")}, ["__metadata__"]),
]
"""For 22 bytes of data."""

CONFIGS: list[tuple[dict[str, Any], list[str]]] = [
    ({"vocab_size": 41}, ["41", "40"]),
    ({"num_attention_heads": 3, "num_key_value_heads": 3}, ["32", "3"]),
    ({"num_key_value_heads": 3}, ["4", "3"]),
    ({"num_hidden_layers": 3}, ["3", "2"]),
    ({"num_hidden_layers": 10**6}, ["1000000", "1024"]),
    ({"num_hidden_layers": 0}, ["num_hidden_layers", "0"]),
    ({"num_hidden_layers": "2"}, ["num_hidden_layers"]),
    ({"num_hidden_layers": True}, ["num_hidden_layers"]),
    ({"max_position_embeddings": 2**40}, [str(2**40), str(2**24)]),
    ({"hidden_size": 64}, ["64", "32"]),
    ({"intermediate_size": 48}, ["48", "64"]),
    ({"head_dim": 16}, ["64", "32"]),
    ({"tie_word_embeddings": False}, ["lm_head.weight"]),
    ({"rope_theta": float("nan")}, ["rope_theta", "nan"]),
    ({"rms_norm_eps": -1e-5}, ["rms_norm_eps"]),
    ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, ["factor", "0"]),
    ({"rope_scaling": {"type": "linear", "factor": float("nan")}}, ["factor", "nan"]),
    ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, ["0.5", "1"]),
    ({"rope_scaling": {"rope_type": "linear", "factor": "4"}}, ["factor"]),
    ({"rope_scaling": {"rope_type": "linear", "factor": 10**400}}, ["factor"]),
    ({"rope_scaling": [4]}, ["rope_scaling"]),
    ({"rope_parameters": {"full_attention": {"rope_theta": 0.0}}}, ["rope_theta"]),
    ({"rope_parameters": {"low_freq_factor": 4.0, "high_freq_factor": 1.0}}, ["4.0", "1.0"]),
    ({"quantization_config": {"quant_method": "awq"}}, ["awq", "GGUF"]),
    ({"model_type": {"a": 1}}, ["model_type"]),
    ({"architectures": "LlamaForCausalLM"}, ["architectures", "'LlamaForCausalLM'", "list of names"]),
    ({"architectures": ["LlamaForCausalLM", 5]}, ["architectures", "list of names"]),
    ({"architectures": {"LlamaForCausalLM": 1}}, ["architectures", "list of names"]),
    ({"text_config": TINY_CONFIG, "num_hidden_layers": "2"}, ["num_hidden_layers"]),
]
"""What is changed of TINY_CONFIG."""
NO_CONFIGS = ["", "[]", "null", "{", '{"a":' * 20000, "\ufffe", '{"hidden_size": ' + "9" * 5000 + "}"]

GGUF_METADATA: list[tuple[dict[str, Any], list[str]]] = [
    ({"general.architecture": "mamba"}, ["mamba", "llama", "qwen2"]),
    ({"llama.vocab_size": 41}, ["41", "40"]),
    ({"tokenizer.ggml.tokens": ["x"] * 41}, ["41", "40"]),
    ({"llama.attention.head_count": 3}, ["32", "3"]),
    ({"llama.attention.head_count_kv": 3}, ["4", "3"]),
    ({"llama.block_count": 3}, ["3", "2"]),
    ({"llama.block_count": 1}, ["1", "2"]),
    ({"llama.block_count": 10**6}, ["1000000", "1024"]),
    ({"llama.embedding_length": 64}, ["64", "32"]),
    ({"llama.feed_forward_length": 96}, ["96", "64"]),
    ({"llama.attention.key_length": 16}, ["64", "32"]),
    ({"llama.attention.value_length": 16}, ["16", "8"]),
    ({"llama.rope.dimension_count": 4}, ["4", "8"]),
    ({"llama.context_length": 0}, ["context_length"]),
    ({"llama.context_length": 2**31}, [str(2**31), str(2**24)]),
    ({"llama.rope.freq_base": float("nan")}, ["freq_base", "nan"]),
    ({"llama.rope.freq_base": -1.0}, ["freq_base"]),
    ({"llama.attention.layer_norm_rms_epsilon": float("inf")}, ["epsilon"]),
    ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 0.0}, ["factor", "0"]),
    ({"llama.rope.scaling.type": "longrope"}, ["longrope"]),
    ({"llama.rope.scaling.type": "yarn"}, ["factor"]),
    ({"llama.expert_count": 8}, ["llama.expert_used_count"]),
    ({"llama.block_count": "2"}, ["llama.block_count"]),
    ({"llama.attention.head_count": [4, 2]}, ["head_count"]),
    ({"tokenizer.ggml.eos_token_id": 40}, ["eos_token_id", "40"]),
    ({"split.count": 3}, ["split"]),
    ({"general.sampling.temp": float("nan")}, ["temp"]),
]
"""What is changed of LLAMA_KEYS."""

GGUF_HEADERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"magic": b"GGML"}, ["GGUF"]),
    ({"version": 1}, ["version 1"]),
    ({"version": 4}, ["version 4"]),
    ({"version": 0x03000000}, ["big-endian"]),
    ({"num_tensors": 2**63}, [str(2**63)]),
    ({"num_tensors": 2**19}, ["tensors"]),
    ({"num_keys": 2**62}, [str(2**62)]),
    ({"num_keys": 2**16}, ["metadata keys"]),
]
"""Arguments of gguf_bytes."""

GGUF_TENSORS: list[tuple[dict[str, Any], list[str]]] = [
    ({"offset": 2**40}, ["file"]),
    ({"offset": 2**64 - 32}, ["file"]),
    ({"offset": 33}, ["33", "32"]),
    ({"offset": 0}, ["overlap"]),
    ({"type_id": 40}, ["NVFP4"]),
    ({"type_id": 4}, ["type 4", "Q4_K"]),
    ({"type_id": 999}, ["999"]),
    ({"type_id": 12}, ["256"]),
]
"""What is changed of the Info of LIAR, which has 2,048 bytes."""

HUGE = struct.pack("<Q", 2**62)
GGUF_VALUES = [
    struct.pack("<I", STRING) + HUGE,
    struct.pack("<I", 99) + b"\0" * 8,
    struct.pack("<II", ARRAY, U32) + HUGE,
    struct.pack("<II", ARRAY, STRING) + HUGE,
    struct.pack("<II", ARRAY, ARRAY) + HUGE,
    struct.pack("<II", ARRAY, 77) + HUGE,
    struct.pack("<IIQ", ARRAY, STRING, 3) + text("a") + HUGE,
    struct.pack("<I", STRING) + text(b"\xff\xfe"),
    struct.pack("<IIQ", ARRAY, STRING, 1) + text(b"\xff\xfe"),
    struct.pack("<IB", BOOL, 2),
    struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 6 + struct.pack("<IQ", U32, 0),
]
"""Metadata values, types included."""
ALIGNMENTS: list[Any] = [0, 3, 4, 2**31, "32", -8, True]
SIZES = [0, -1, 2**62, 2**63, 2**64 - 32]
"""Of one dimension."""
LIAR = "blk.1.attn_v.weight"
