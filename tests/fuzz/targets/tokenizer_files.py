"""tokenizer.json and tokenizer_config.json of a model folder, and then texts and chats through them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

from octavo.base.errors import ModelFileError, RequestError
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import Tokenizer, load_tokenizer
from tests.fuzz.mutate import json_mutator
from tests.fuzz.target import Run, Target
from tests.tokens.small_tokenizers import (
    CHATML,
    byte_level_backend,
    save,
    sentencepiece_backend,
    word_piece_backend,
)

SPLIT = b"\n\0\n"
"""Between the two files."""
TEXTS = ("", "hello world", "naïve café 日本語 😀", "<|im_start|>user\nhi<|im_end|>", " \n\t a  b", "\0")
_MUTATE = json_mutator([
    "type", "model", "vocab", "merges", "unk_token", "byte_fallback", "normalizer", "pre_tokenizer",
    "decoder",
    "post_processor", "added_tokens", "pattern", "Regex", "String", "Sequence", "BPE", "Unigram", "WordPiece",
    "WordLevel", "Split", "ByteLevel", "Metaspace", "Replace", "content", "id", "special", "lstrip", "rstrip",
    "normalized", "single_word", "chat_template", "bos_token", "eos_token", "added_tokens_decoder", "name",
    "template", "response_template", "truncation", "padding", "max_input_chars_per_word", "dropout",
])  # fmt: skip


def opened(folder: Path) -> Run:
    def run(data: bytes) -> None:
        tokenizer, _, config = data.partition(SPLIT)
        (folder / "tokenizer.json").write_bytes(tokenizer)
        (folder / "tokenizer_config.json").write_bytes(config or b"{}")
        try:
            used(load_tokenizer(TokenizerSource(folder=folder)))
        except ModelFileError:
            return

    return run


def used(tokenizer: Tokenizer) -> None:
    """What a server does with a tokenizer: nothing raises but a RequestError."""
    for text in TEXTS:
        try:
            ids = tokenizer.encode(text)
            tokenizer.encode_plain(text)
            tokenizer.decode(ids)
            b"".join(map(tokenizer.token_bytes, ids))
            tokenizer.encode_chat([{"role": "user", "content": text}])
        except RequestError:
            continue
    for token_id in (0, 1, tokenizer.vocab_size, 2**31):
        assert isinstance(tokenizer.token_text(token_id), str)


def mutate(data: bytes, rng: Random) -> bytes:
    tokenizer, _, config = data.partition(SPLIT)
    if rng.random() < 0.25:
        return tokenizer + SPLIT + _MUTATE(config or b"{}", rng)
    return _MUTATE(tokenizer, rng) + SPLIT + config


def seeds() -> Iterator[bytes]:
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": CHATML}
    for backend in (byte_level_backend(), sentencepiece_backend(), word_piece_backend()):
        with tempfile.TemporaryDirectory() as name:
            folder = save(backend, Path(name), **config)
            files = [
                json.loads((folder / file).read_bytes())
                for file in ("tokenizer.json", "tokenizer_config.json")
            ]
        yield SPLIT.join(json.dumps(file).encode() for file in files)


TARGET = Target(open=opened, seeds=seeds, mutate=mutate, max_bytes=48 * 1024)
