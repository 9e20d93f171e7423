"""Tokenizers loaded the way a checkpoint's are."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_tokenizers import CHATML, byte_level_backend, save, sentencepiece_backend, word_piece_backend

from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import Tokenizer as OctavoTokenizer
from octavo.tokens.tokenizer import load_tokenizer


@pytest.fixture(scope="session")
def byte_level_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(
        byte_level_backend(),
        tmp_path_factory.mktemp("byte_level"),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )


@pytest.fixture(scope="session")
def byte_level(byte_level_folder: Path) -> OctavoTokenizer:
    return load_tokenizer(TokenizerSource(folder=byte_level_folder))


@pytest.fixture(scope="session")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> OctavoTokenizer:
    folder = save(sentencepiece_backend(), tmp_path_factory.mktemp("spm"), bos_token="<s>", eos_token="</s>")
    return load_tokenizer(TokenizerSource(folder=folder), chat_template="{{ messages[0].content }}</s>")


@pytest.fixture(scope="session")
def word_piece(tmp_path_factory: pytest.TempPathFactory) -> OctavoTokenizer:
    folder = save(word_piece_backend(), tmp_path_factory.mktemp("bert"), unk_token="[UNK]")
    return load_tokenizer(TokenizerSource(folder=folder))
