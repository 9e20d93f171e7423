"""The two model shapes that are measured, and folders that hold nothing of a model but its shape."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import Any

BYTES_PER_ELEMENT = 2
"""Weights and KV are bfloat16."""


@dataclass(frozen=True)
class Shape:
    """A decoder by its config.json, and what one of its steps has to read and compute."""

    name: str
    config: Mapping[str, Any]

    @property
    def vocab_size(self) -> int:
        return int(self.config["vocab_size"])

    @property
    def num_layers(self) -> int:
        return int(self.config["num_hidden_layers"])

    @property
    def query_width(self) -> int:
        return int(self.config["num_attention_heads"] * self.config["head_dim"])

    @property
    def kv_width(self) -> int:
        return int(self.config["num_key_value_heads"] * self.config["head_dim"])

    @property
    def layer_product_elements(self) -> int:
        """Weights in the matrix products of all layers."""
        hidden, inner = self.config["hidden_size"], self.config["intermediate_size"]
        attention = hidden * (2 * self.query_width + 2 * self.kv_width)
        return int(attention + 3 * hidden * inner) * self.num_layers

    @property
    def head_elements(self) -> int:
        return int(self.config["hidden_size"]) * self.vocab_size

    @property
    def norm_elements(self) -> int:
        hidden = int(self.config["hidden_size"])
        per_head = 2 * int(self.config["head_dim"]) if self.config["model_type"] == "qwen3" else 0
        return (2 * hidden + per_head) * self.num_layers + hidden

    @property
    def weight_bytes(self) -> int:
        """What a decode step reads of the weights; the few looked-up embedding rows are left out."""
        return (self.layer_product_elements + self.head_elements + self.norm_elements) * BYTES_PER_ELEMENT

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.num_layers * self.kv_width * BYTES_PER_ELEMENT


LLAMA_8B = Shape(
    "llama8b",
    {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "rope_theta": 500000.0,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    },
)

QWEN_0_6B = Shape(
    "qwen0.6b",
    {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151936,
        "rope_theta": 1000000.0,
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": True,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_window_layers": 28,
        "sliding_window": None,
        "use_sliding_window": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    },
)

SHAPES = {shape.name: shape for shape in (LLAMA_8B, QWEN_0_6B)}


def write_model(shape: Shape, root: Path) -> Path:
    """A folder with config.json alone: engines fill in random weights. Returns the folder."""
    folder = root / shape.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(shape.config), indent=1))
    return folder


def write_tokenizer(folder: Path, vocab_size: int) -> None:
    """A made-up byte-level tokenizer of `vocab_size` words, for servers that insist on one.

    Prompts are sent as token ids; it only turns the output into text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = dict(zip(itertools.islice(_words(), vocab_size), range(vocab_size), strict=True))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 131072,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _words() -> Iterator[str]:
    """The bytes, then short words without end, two of three with a space in front."""
    from tokenizers import pre_tokenizers

    yield from sorted(pre_tokenizers.ByteLevel.alphabet())
    spellings = (
        "".join(letters)
        for length in itertools.count(2)
        for letters in itertools.product(ascii_lowercase, repeat=length)
    )
    space = "\u0120"  # how byte-level vocabularies write a space
    for number, word in enumerate(spellings):
        yield f"{space if number % 3 else ''}{word}"
