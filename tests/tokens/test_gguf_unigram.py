"""Unigram vocabularies from GGUF metadata: the ids of the tokenizer the file was made from."""

from __future__ import annotations

from typing import Any

import pytest
from small_tokenizers import REWRITTEN, precompiled, unigram_backend, unigram_metadata

from octavo.base.errors import ModelFileError, RequestError
from octavo.tokens.for_pooling import PoolingEncoder
from octavo.tokens.source import TokenizerSource
from octavo.tokens.tokenizer import Tokenizer, load_tokenizer

CHARSMAP = precompiled(REWRITTEN)
TEXTS = [
    "the quick brown fox",
    "  leading and   inner \t\n spaces  ",
    "the ﬁx\u3000of Ａ",
    "unknown: ЖЖЖ ж the",
    "the <mask> fox</s> <s>the <unk>",
    "",
    " ",
    "▁the ▁ dog",
]


def load(metadata: dict[str, Any]) -> Tokenizer:
    return load_tokenizer(TokenizerSource(gguf_metadata={"general.architecture": "bert", **metadata}))


def metadata(**changes: Any) -> dict[str, Any]:
    """None: without the key."""
    made = {
        **unigram_metadata(unigram_backend(CHARSMAP), CHARSMAP),
        **{f"tokenizer.ggml.{key}": value for key, value in changes.items()},
    }
    return {key: value for key, value in made.items() if value is not None}


@pytest.mark.parametrize("charsmap", [b"", CHARSMAP])
def test_ids_equal_the_original(charsmap: bytes) -> None:
    original = unigram_backend(charsmap)
    tokenizer = load(unigram_metadata(original, charsmap))
    for text in TEXTS:
        encoding = original.encode(text)
        assert tokenizer.encode(text) == encoding.ids
        assert tokenizer.decode(encoding.ids) == original.decode(encoding.ids)
    pair = original.encode("the dog", "a fox")
    found = tokenizer.backend.encode("the dog", "a fox")
    assert (found.ids, found.type_ids) == (pair.ids, pair.type_ids)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids) == (0, [2])


def test_bytes_may_be_stored_as_signed_numbers() -> None:
    signed = [byte - 256 if byte > 127 else byte for byte in CHARSMAP]
    original = unigram_backend(CHARSMAP)
    assert load(metadata(precompiled_charsmap=signed)).encode("the ﬁx") == original.encode("the ﬁx").ids


def test_what_the_file_says_of_spaces_and_marks() -> None:
    def tokens(text: str, **changes: Any) -> list[str]:
        return load(metadata(**changes)).backend.encode(text).tokens

    assert tokens("the  dog") == tokens(" the dog ")
    assert tokens("the  the", remove_extra_whitespaces=False)[1:-1] == ["▁t", "he", "▁", "▁t", "he"]
    assert tokens("the", add_space_prefix=False)[1:-1] == ["t", "he"]
    assert tokens("the", add_bos_token=False, add_eos_token=False) == ["▁t", "he"]
    assert tokens("the", add_bos_token=None, add_eos_token=None) == ["<s>", "▁t", "he", "</s>"]
    assert tokens("Ж", unknown_token_id=None) == tokens("Ж")


def test_bytes_in_the_place_of_unknown_characters() -> None:
    plain = metadata()
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    size = len(plain["tokenizer.ggml.tokens"])
    tokenizer = load(
        metadata(
            tokens=plain["tokenizer.ggml.tokens"] + pieces,
            scores=plain["tokenizer.ggml.scores"] + [0.0] * 256,
            token_type=plain["tokenizer.ggml.token_type"] + [6] * 256,
        )
    )
    ids = tokenizer.encode("Ж", add_special_tokens=False)
    assert ids[-2:] == [size + byte for byte in "Ж".encode()]
    assert tokenizer.decode(ids) == "Ж"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [1.0]}, "needs a score for every token"),
        ({"scores": None}, "needs a score for every token"),
        ({"scores": [float("nan")] * len(metadata()["tokenizer.ggml.tokens"])}, "no finite number"),
        ({"unknown_token_id": None, "token_type": None}, "unknown_token_id"),
        ({"precompiled_charsmap": [300]}, "does not hold bytes"),
        ({"precompiled_charsmap": [1, 2]}, "broken"),
    ],
)
def test_lying_files_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        load(metadata(**change))


def test_a_map_of_characters_that_leads_outside_of_itself_fails_the_request() -> None:
    """The library panics, which is no Exception."""
    units = 512
    cut = (4 * units).to_bytes(4, "little") + CHARSMAP[4 : 4 + 4 * units] + b"fi\0"
    encoder = PoolingEncoder(load(metadata(precompiled_charsmap=list(cut))), lowercases=False)
    assert encoder.encode(["the dog"], 100, None, "right")
    with pytest.raises(RequestError, match="tokenizer cannot take this") as caught:
        encoder.encode(["the ﬁx"], 100, None, "right")
    assert caught.value.param == "input"
