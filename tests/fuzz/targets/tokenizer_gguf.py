"""The tokenizer keys of a GGUF file, as JSON here: how bytes become values is the target `gguf`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from octavo.base.errors import ModelFileError
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import load_tokenizer
from tests.fuzz.mutate import json_mutator
from tests.fuzz.target import Run, Target
from tests.fuzz.targets.tokenizer_files import used
from tests.tokens.small_tokenizers import CHATML

KEYS = ("model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id",
         "add_bos_token",
        "unknown_token_id", "add_space_prefix", "eot_token_id", "cls_token_id",
        "seperator_token_id")  # fmt: skip


def opened(folder: Path) -> Run:
    def run(data: bytes) -> None:
        try:
            metadata = json.loads(data)
        except (ValueError, RecursionError):
            return
        if not isinstance(metadata, dict):
            return
        try:
            used(load_tokenizer(TokenizerSource(gguf_metadata=metadata)))
        except ModelFileError:
            return

    return run


def seeds() -> Iterator[bytes]:
    letters = [chr(number) for number in range(33, 127)]
    byte_level = {
        "general.architecture": "qwen2",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [*letters, "Ġ", "Ċ", "he", "ll", "<|im_start|>", "<|im_end|>"],
        "tokenizer.ggml.token_type": [1] * (len(letters) + 4) + [3, 3],
        "tokenizer.ggml.merges": ["h e", "l l"],
        "tokenizer.ggml.eos_token_id": len(letters) + 5,
        "tokenizer.chat_template": CHATML,
    }
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters, "▁he", "ll"]
    sentences = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [-float(index) for index in range(len(pieces))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (len(pieces) - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
    }
    words = {
        "general.architecture": "bert",
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁hello", "▁world", "s", "▁a"],
        "tokenizer.ggml.token_type": [3, 3, 3, 3, 1, 1, 1, 1],
        "tokenizer.ggml.cls_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.unknown_token_id": 1,
    }
    for metadata in (byte_level, sentences, words):
        yield json.dumps(metadata).encode()


TARGET = Target(
    open=opened,
    seeds=seeds,
    mutate=json_mutator(
        [f"tokenizer.ggml.{key}" for key in KEYS] + ["tokenizer.chat_template", "gpt2", "llama", "bert"]
    ),
)
