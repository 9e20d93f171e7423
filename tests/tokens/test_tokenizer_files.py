"""Tokenizer files that leave the model's folder, or are no files: refused, and nobody waits for them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from octavo.base.errors import ModelFileError
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import load_tokenizer

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


@pytest.fixture
def folder(byte_level_folder: Path, tmp_path: Path) -> Path:
    """A tokenizer that a test may spoil, with every file it can have."""
    copy = Path(shutil.copytree(byte_level_folder, tmp_path / "model"))
    (copy / "special_tokens_map.json").write_text("{}")
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")
    load_tokenizer(TokenizerSource(folder=copy))
    return copy


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        load_tokenizer(TokenizerSource(folder=folder))
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize("name", FILES)
def test_links_must_stay_inside(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(f"../{name}")
    refused(folder, name, "link")


@pytest.mark.parametrize("name", FILES)
def test_pipes_do_not_block(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, name, "regular")


@pytest.mark.parametrize(
    "name", ["vocab.txt", "vocab.json", "merges.txt", "added_tokens.json", "odd_name.txt"]
)
def test_older_tokenizers_are_read_from_files_of_the_folder_only(folder: Path, name: str) -> None:
    """transformers reads these, so everything that it may open is looked at before."""
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[UNK]\n")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../elsewhere")
    (folder.parent / "elsewhere").write_text("secret")
    refused(folder, name, "link")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    refused(folder, name, "regular")


def test_code_of_its_own_is_not_even_read(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("[UNK]\n")
    (folder / "evil.py").write_text("raise SystemExit('this code ran')")
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}}')
    refused(folder, "auto_map")


def test_templates_in_their_own_folder_stay_there(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder.parent / "elsewhere").write_text("secret")
    (folder / "additional_chat_templates" / "rag.jinja").symlink_to("../../elsewhere")
    refused(folder, "rag.jinja", "link")
