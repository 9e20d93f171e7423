"""Small tokenizers made on the spot: byte-level, SentencePiece-like with byte fallback, WordPiece."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from octavo.tokens.parts import TokenizerParts
from octavo.tokens.tokenizer import Tokenizer as OctavoTokenizer

TEXT = (
    "the quick brown fox jumps over the lazy dog and the user asks the assistant to end the system message "
    "hello world 2024 don't we'll naïve café 日本語のテキスト 你好世界 emoji 😀👩‍👩‍👧 "
    "<html> im_start im_end |> <| "
) * 3
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level_backend() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    backend.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    backend.add_tokens([AddedToken("<tool>", normalized=False)])
    return backend


def sentencepiece_backend(scheme: str = "first") -> Tokenizer:
    words = sorted({f"▁{word}" for word in TEXT.split()})
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += sorted({character for word in words for character in word if ord(character) < 128})
    merges = []
    known = set(pieces)
    for word in words:
        if all(ord(character) < 128 or character == "▁" for character in word):
            for cut in range(1, len(word)):
                if word[: cut + 1] not in known:
                    known.add(word[: cut + 1])
                    pieces.append(word[: cut + 1])
                    merges.append((word[:cut], word[cut]))
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in ("<unk>", "<s>", "</s>")])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", vocab["<s>"])]
    )
    return backend


def word_piece_backend() -> Tokenizer:
    vocab = {mark: index for index, mark in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])}
    for piece in ["hello", "world", "##s", "##ing", "play", "a", "b", "##c", "!", ","]:
        vocab[piece] = len(vocab)
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    return backend


REWRITTEN = {"ﬁ": "fi", "\u3000": " ", "Ａ": "A", "\t": " "}


def unigram_backend(charsmap: bytes = b"") -> Tokenizer:
    """As XLM-RoBERTa has it. charsmap: see `precompiled`."""
    backend = Tokenizer.from_str(_trained_unigram())
    if charsmap:
        backend.normalizer = normalizers.Precompiled(charsmap)
    return backend


@cache
def _trained_unigram() -> str:
    """Trained once: pieces of equal scores come in another order every time."""
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace("▁", prepend_scheme="always")]
    )
    backend.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=marks, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks])
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return str(backend.to_str())


def unigram_metadata(backend: Tokenizer, charsmap: bytes = b"") -> dict[str, Any]:
    """What a converter writes of it."""
    pieces = json.loads(backend.to_str())["model"]["vocab"]
    kinds = [3, 3, 3, 2, *(1 for _ in pieces[4:]), 3]
    keys = {
        "model": "t5",
        "pre": "default",
        "tokens": [*(piece for piece, _ in pieces), "<mask>"],
        "scores": [*(float(score) for _, score in pieces), 0.0],
        "token_type": kinds,
        "token_type_count": 1,
        "add_space_prefix": True,
        "remove_extra_whitespaces": True,
        "bos_token_id": 0,
        "padding_token_id": 1,
        "eos_token_id": 2,
        "seperator_token_id": 2,
        "unknown_token_id": 3,
        "cls_token_id": 0,
        "mask_token_id": len(pieces),
        "add_bos_token": True,
        "add_eos_token": True,
    }
    keys |= {"precompiled_charsmap": list(charsmap)} if charsmap else {}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def precompiled(rewritten: dict[str, str]) -> bytes:
    """SentencePiece's form of what becomes of which characters: a trie in one array, and the texts.

    Each node has 256 units of its own. A unit holds the step to its children, whether it ends a key, and its
    own byte.
    """
    texts, values = b"", {}
    for key, text in rewritten.items():
        values[key.encode()] = len(texts)
        texts += text.encode() + b"\0"
    places = {b"": 256}
    for key in values:
        for end in range(1, len(key) + 1):
            places.setdefault(key[:end], 256 * (len(places) + 1))
    units = [0] * (256 * (len(places) + 1))
    units[0] = places[b""] << 10
    for node, place in places.items():
        if node:
            unit = places[node[:-1]] ^ node[-1]
            units[unit] = (unit ^ place) << 10 | (node in values) << 8 | node[-1]
        if node in values:
            units[place] = 1 << 31 | values[node]
    return struct.pack(f"<{1 + len(units)}I", 4 * len(units), *units) + texts


def save(backend: Tokenizer, folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **config})
    )
    return folder


def as_tokenizer(backend: Tokenizer, chat_template: str | None = None, **special: str) -> OctavoTokenizer:
    parts = TokenizerParts(
        tokenizer=backend,
        bos_token_id=None,
        eos_token_ids=[],
        special_tokens=special,
        chat_templates={},
        vocab_size=backend.get_vocab_size(),
    )
    return OctavoTokenizer(parts, {"default": chat_template} if chat_template else {})
