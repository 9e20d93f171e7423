"""Some special tokens are shown while the others stay hidden."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from octavo.tokens.detokenizer import Detokenizer
from octavo.tokens.parts import TokenizerParts
from octavo.tokens.tokenizer import Tokenizer as OurTokenizer

SPECIAL = ["<bos>", "<call>", "</call>", "<end>"]


def made(kind: str) -> OurTokenizer:
    if kind == "bytes":
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        backend = Tokenizer(models.BPE({char: i for i, char in enumerate(sorted(alphabet))}, []))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    else:
        backend = Tokenizer(models.WordLevel({"hello": 0, "world": 1, "[UNK]": 2}, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
        backend.decoder = decoders.WordPiece()
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    parts = TokenizerParts(
        tokenizer=backend,
        bos_token_id=None,
        eos_token_ids=[],
        special_tokens={},
        chat_templates={},
        vocab_size=backend.get_vocab_size(),
    )
    return OurTokenizer(parts, {})


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_only_the_named_ones_show(kind: str) -> None:
    tokenizer = made(kind)
    ids = tokenizer.encode("<bos><call>hello</call><end>", False)
    shown = tokenizer.special_ids_in(["begins with <call>", "</call>"])
    assert sorted(shown) == sorted(tokenizer.encode("<call></call>", False))

    def text(**options: object) -> str:
        detokenizer = Detokenizer(tokenizer, [], **options)  # type: ignore[arg-type]
        return ("".join(detokenizer.add([token]) for token in ids) + detokenizer.flush()).replace(" ", "")

    assert text(shown_special_token_ids=shown) == "<call>hello</call>"
    assert text() == "hello"
    assert text(skip_special_tokens=False, shown_special_token_ids=shown) == "<bos><call>hello</call><end>"


def test_few_sets_are_remembered() -> None:
    tokenizer = made("bytes")
    first = tokenizer.pieces(True, frozenset({256}))
    assert tokenizer.pieces(True, frozenset({256})) is first
    for number in range(100):
        tokenizer.pieces(True, frozenset({number}))
    assert tokenizer.pieces(True) is tokenizer.pieces(True)
