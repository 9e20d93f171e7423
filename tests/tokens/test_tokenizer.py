"""Encoding, decoding and tokens as log-probabilities show them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chats import rendered
from hypothesis import given
from hypothesis import strategies as st
from small_tokenizers import as_tokenizer, byte_level_backend, save, sentencepiece_backend
from tokenizers import Tokenizer as Backend
from tokenizers import models

from octavo.base.errors import ModelFileError, RequestError
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import Tokenizer, load_tokenizer

BYTE_LEVEL = as_tokenizer(byte_level_backend())
SENTENCEPIECE = as_tokenizer(sentencepiece_backend())


@given(st.text(max_size=60))
def test_byte_level_round_trip(text: str) -> None:
    ids = BYTE_LEVEL.encode_plain(text)
    assert BYTE_LEVEL.decode(ids, skip_special_tokens=False) == text
    assert b"".join(map(BYTE_LEVEL.token_bytes, ids)) == text.encode()
    assert len(text) <= BYTE_LEVEL.max_chars_for(len(ids))


def test_special_tokens_in_text_are_parsed_only_by_encode() -> None:
    end = BYTE_LEVEL.backend.token_to_id("<|im_end|>")
    assert end in BYTE_LEVEL.encode("a<|im_end|>b")
    plain = BYTE_LEVEL.encode_plain("a<|im_end|>b<tool>")
    assert end not in plain
    assert BYTE_LEVEL.backend.token_to_id("<tool>") in plain  # an added token, but not a special one
    assert BYTE_LEVEL.decode(plain) == "a<|im_end|>b<tool>"


def test_plain_and_parsed_agree_without_special_tokens() -> None:
    for tokenizer in (BYTE_LEVEL, SENTENCEPIECE):
        for text in ("", "the fox", "  two  spaces ", "日本語 <tool> x", "\n\n"):
            assert tokenizer.encode_plain(text) == tokenizer.encode(text, add_special_tokens=False)


def test_bos_is_added_only_when_asked_for() -> None:
    bos = SENTENCEPIECE.backend.token_to_id("<s>")
    assert SENTENCEPIECE.encode("the fox")[0] == bos
    assert bos not in SENTENCEPIECE.encode("the fox", add_special_tokens=False)


def test_batch_equals_one_by_one() -> None:
    texts = ["a", "the fox", "", "<|im_end|>"]
    assert BYTE_LEVEL.encode_batch(texts) == [BYTE_LEVEL.encode(text) for text in texts]


def test_part_of_a_character_is_shown_as_bytes() -> None:
    ids = BYTE_LEVEL.encode("\U0001f9ff")
    assert len(ids) > 1
    assert BYTE_LEVEL.token_text(ids[0]).startswith("bytes:\\xf0")
    assert SENTENCEPIECE.token_bytes(SENTENCEPIECE.backend.token_to_id("<0x0A>")) == b"\n"
    assert SENTENCEPIECE.token_text(SENTENCEPIECE.backend.token_to_id("▁the")) == " the"
    assert BYTE_LEVEL.token_text(BYTE_LEVEL.backend.token_to_id("<|im_end|>")) == "<|im_end|>"


def test_ids_outside_the_vocabulary_have_no_text() -> None:
    assert BYTE_LEVEL.token_text(10**6) == ""
    assert BYTE_LEVEL.token_text(-1) == ""
    assert BYTE_LEVEL.decode([10**6]) == ""
    for wrong in (-1, 2**40):
        with pytest.raises(RequestError, match="Token ids go from 0"):
            BYTE_LEVEL.decode([wrong])


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(RequestError, match="surrogates"):
        BYTE_LEVEL.encode("a\ud800b")
    with pytest.raises(RequestError, match="surrogates"):
        BYTE_LEVEL.encode_plain("a\ud800b")


def test_facts_from_files(byte_level: Tokenizer) -> None:
    assert byte_level.bos_token_id == byte_level.backend.token_to_id("<|im_start|>")
    assert byte_level.eos_token_ids == [byte_level.backend.token_to_id("<|im_end|>")]
    assert byte_level.vocab_size == byte_level.backend.get_vocab_size()
    assert byte_level.is_special(byte_level.eos_token_ids[0])
    assert not byte_level.is_special(byte_level.backend.token_to_id("<tool>"))


@pytest.mark.parametrize(
    "config", [{}, {"add_bos_token": True}, {"add_bos_token": True, "add_eos_token": True}]
)
def test_ids_equal_auto_tokenizer(tmp_path: Path, config: dict[str, bool]) -> None:
    transformers = pytest.importorskip("transformers")
    folder = save(byte_level_backend(), tmp_path, bos_token="<|im_start|>", eos_token="<|im_end|>", **config)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(TokenizerSource(folder=folder))
    for text in ("the fox", "  a\n\n<|im_end|> b<tool>", "日本語", ""):
        assert ours.encode(text) == theirs(text)["input_ids"]
        assert ours.encode(text, False) == theirs(text, add_special_tokens=False)["input_ids"]


def test_tokens_named_only_in_the_config_become_special(tmp_path: Path) -> None:
    backend = byte_level_backend()
    folder = save(
        backend,
        tmp_path,
        eos_token="the",
        added_tokens_decoder={
            str(backend.get_vocab_size()): {"content": "<new>", "special": True},
            "²": {"content": "<no number>", "special": True},
        },
    )
    tokenizer = load_tokenizer(TokenizerSource(folder=folder))
    assert tokenizer.encode("a<new>")[-1] == backend.get_vocab_size()
    assert tokenizer.is_special(tokenizer.eos_token_ids[0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "tokenizer.json cannot be read"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", "[]", "has to hold a JSON object"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"99999": {"content": "<x>"}}}', "has no room"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    folder = save(byte_level_backend(), tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(ModelFileError, match=message):
        load_tokenizer(TokenizerSource(folder=folder))


def test_a_panic_of_the_library_is_a_broken_file(tmp_path: Path) -> None:
    """Panics are no Exception: nothing but a file like this shows that they are caught."""
    folder = save(byte_level_backend(), tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["continuing_subword_prefix"] = "#" * 99
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelFileError, match="cannot be used"):
        load_tokenizer(TokenizerSource(folder=folder))


def test_a_vocabulary_without_a_token_for_the_unknown_is_found_out_at_load(tmp_path: Path) -> None:
    backend = Backend(models.WordPiece({"hello": 0}, unk_token="[UNK]"))
    with pytest.raises(ModelFileError, match="UNK"):
        load_tokenizer(TokenizerSource(folder=save(backend, tmp_path)))


def test_what_the_library_cannot_encode_is_the_requests_error() -> None:
    tokenizer = as_tokenizer(Backend(models.WordPiece({"hello": 0}, unk_token="[UNK]")))
    with pytest.raises(RequestError, match="cannot take this"):
        tokenizer.encode("good-bye")


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"looked for tokenizer\.json"):
        load_tokenizer(TokenizerSource(folder=tmp_path))
    with pytest.raises(ModelFileError, match="no tokenizer"):
        load_tokenizer(TokenizerSource())


def test_older_vocabularies_are_converted(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello"]))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    tokenizer = load_tokenizer(TokenizerSource(folder=tmp_path))
    assert tokenizer.encode("Hello") == [2, 5, 3]


def test_chat_template_files(tmp_path: Path) -> None:
    folder = save(
        byte_level_backend(),
        tmp_path,
        chat_template=[
            {"name": "default", "template": "D"},
            {"name": "tool_use", "template": "T"},
        ],
    )
    tokenizer = load_tokenizer(TokenizerSource(folder=folder))
    message = [{"role": "user", "content": "x"}]
    assert rendered(tokenizer, message) == "D"
    assert rendered(tokenizer, message, tools=[{"type": "function"}]) == "T"
    assert rendered(tokenizer, message, chat_template="tool_use") == "T"
    (folder / "chat_template.jinja").write_text("J")
    assert load_tokenizer(TokenizerSource(folder=folder)).chat_template == "J"
    own = tmp_path / "own.jinja"
    own.write_text("O{{ messages[0].content }}")
    assert rendered(load_tokenizer(TokenizerSource(folder=folder), str(own)), message) == "Ox"
