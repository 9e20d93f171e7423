"""Small tokenizers made on the spot: byte-level, SentencePiece-like with byte fallback, WordPiece."""

from __future__ import annotations

import json
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
