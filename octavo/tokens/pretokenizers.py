"""Facts about byte-level BPE: GGUF's `tokenizer.ggml.pre` name -> how text is split before merging.

A table only. `from_gguf` turns an entry into a pre-tokenizer; a new vocabulary is one more line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_OPENING = r"[^\r\n\p{L}\p{N}]?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PUNCTUATION = r" ?[^\s\p{L}\p{N}]+"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|{_OPENING}\p{{L}}+|\p{{N}}{{1,3}}|{_PUNCTUATION}[\r\n]*|{_SPACES}"
_QWEN2 = rf"{_CONTRACTIONS}|{_OPENING}\p{{L}}+|\p{{N}}|{_PUNCTUATION}[\r\n]*|{_SPACES}"
_QWEN35 = (
    rf"{_CONTRACTIONS}|{_OPENING}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_TEKKEN = (
    rf"{_OPENING}{_UPPER}*{_LOWER}+|{_OPENING}{_UPPER}+{_LOWER}*|\p{{N}}|{_PUNCTUATION}[\r\n/]*|{_SPACES}"
)
_GPT4O = (
    rf"{_OPENING}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_OPENING}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_PUNCTUATION}[\r\n/]*|{_SPACES}"
)
_SEED_CODER = rf"{_CONTRACTIONS}|{_OPENING}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}"
_UPPER_NOT_HAN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER_NOT_HAN = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_KIMI = (
    rf"\p{{Han}}+|{_OPENING}{_UPPER_NOT_HAN}*{_LOWER_NOT_HAN}+{_CONTRACTIONS}?"
    rf"|{_OPENING}{_UPPER_NOT_HAN}+{_LOWER_NOT_HAN}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_PUNCTUATION}[\r\n]*|{_SPACES}"
)
_DEEPSEEK_CJK = "[一-龥぀-ゟ゠-ヿ]+"
_DEEPSEEK3_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
)
_OLD_CJK = "[一-龥ࠀ-一가-\ud7ff]+"
_CASED = r"[\p{Lu}\p{Ll}\p{Lt}]"
_ASCII_OR_WIDE = "[!-/:-~！-／：-～‘-‟\u3000-。]"
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"


@dataclass(frozen=True, kw_only=True)
class PreTokenizer:
    """How one family of vocabularies cuts text."""

    splits: tuple[str, ...]
    """Regular expressions, applied one after the other; matches and gaps both stay."""
    ignore_merges: bool = False
    """A piece that is a whole token is taken as it is."""
    nfc: bool = False
    """Text is brought into composed form first."""
    add_bos: bool = False
    """Whether a file that does not say so wants a beginning-of-sequence token."""


DEFAULT = PreTokenizer(splits=(_GPT2,))
_DIGITS = PreTokenizer(splits=(r"\p{N}", _GPT2))
_LLAMA = PreTokenizer(splits=(_LLAMA3,), ignore_merges=True, add_bos=True)
_THOUSANDS = PreTokenizer(splits=(_LLAMA3,))
_QWEN = PreTokenizer(splits=(_QWEN2,), nfc=True)
_O200K = PreTokenizer(splits=(_GPT4O,))
_DEEPSEEK3 = PreTokenizer(splits=(r"\p{N}{1,3}", _DEEPSEEK_CJK, _DEEPSEEK3_WORDS))
_WORDS = PreTokenizer(splits=(_BLOOM,))


def _same(facts: PreTokenizer, names: Iterable[str]) -> dict[str, PreTokenizer]:
    return dict.fromkeys(names, facts)


PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **_same(DEFAULT, ("default", "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "exaone4")),
    **_same(DEFAULT, ("gigachat", "a.x-4.0", "mellum", "modern-bert")),
    **_same(DEFAULT, ("granite-docling", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de", "roberta-bpe")),
    **_same(_DIGITS, ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")),
    **_same(
        _LLAMA, ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")
    ),
    **_same(_THOUSANDS, ("dbrx", "smaug-bpe", "chatglm-bpe", "glm4")),
    **_same(_QWEN, ("qwen2", "deepseek-r1-qwen", "kormo", "megrez")),
    **_same(PreTokenizer(splits=(_QWEN2,)), ("stablelm2", "hunyuan", "solar-open")),
    "seed-coder": PreTokenizer(splits=(_SEED_CODER,)),
    "kimi-k2": PreTokenizer(splits=(_KIMI,)),
    "qwen35": PreTokenizer(splits=(_QWEN35,), nfc=True),
    "tekken": PreTokenizer(splits=(_TEKKEN,), ignore_merges=True, add_bos=True),
    **_same(_O200K, ("gpt-4o", "llama4", "kanana2", "minimax-m2")),
    **_same(_DEEPSEEK3, ("deepseek-v3", "hunyuan-dense", "joyai-llm")),
    "deepseek-llm": PreTokenizer(
        splits=(r"[\r\n]", rf"\s?{_CASED}+", rf"\s?{_ASCII_OR_WIDE}+", r"\s+$", _OLD_CJK, r"\p{N}+"),
    ),
    "deepseek-coder": PreTokenizer(splits=(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _OLD_CJK, r"\p{N}")),
    "falcon": PreTokenizer(splits=(r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
    **_same(_WORDS, ("bloom", "poro-chat", "gpt3-finnish")),
    "viking": PreTokenizer(splits=(_BLOOM, r"\p{N}")),
}
