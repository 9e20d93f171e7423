"""Unigram vocabularies of GGUF files: tokenizer.ggml.model "t5", which XLM-RoBERTa's kin have too.

Of all ways to cut a text into pieces the one with the largest sum of scores is taken (Kudo, "Subword
Regularization", 2018).
"""

from __future__ import annotations

import math
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from octavo.base.errors import ModelFileError
from octavo.tokens.gguf_vocabulary import TokenType, Vocabulary
from octavo.tokens.token_bytes import SPACE


def build_unigram(vocabulary: Vocabulary) -> Tokenizer:
    """With what stands around texts, but without special tokens. Raises ModelFileError."""
    scores, has_bytes = _scores(vocabulary), TokenType.BYTE in vocabulary.types
    tokenizer = Tokenizer(
        models.Unigram(
            list(zip(vocabulary.tokens, scores, strict=True)),
            unk_id=_unknown_id(vocabulary),
            byte_fallback=has_bytes,
        )
    )
    charsmap = vocabulary.charsmap()
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    scheme = "always" if vocabulary.flag("add_space_prefix", True) else "never"
    steps: list[Any] = [pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme)]
    if vocabulary.flag("remove_extra_whitespaces", True):
        steps.insert(0, pre_tokenizers.WhitespaceSplit())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoder]) if has_bytes else decoder
    _add_template(tokenizer, vocabulary)
    return tokenizer


def _scores(vocabulary: Vocabulary) -> list[float]:
    scores = vocabulary.scores
    if len(scores) != len(vocabulary.tokens):
        raise ModelFileError(
            f"The GGUF file lists {len(vocabulary.tokens)} tokens and {len(scores)} scores; a unigram "
            "tokenizer needs a score for every token."
        )
    if not all(isinstance(score, float) and math.isfinite(score) for score in scores):
        raise ModelFileError(
            "tokenizer.ggml.scores of the GGUF file holds something that is no finite number."
        )
    return scores


def _unknown_id(vocabulary: Vocabulary) -> int:
    """Of the token for characters that no piece has; without one they could not be encoded."""
    stated = vocabulary.token_id("unknown_token_id")
    if stated is not None:
        return stated
    if TokenType.UNKNOWN not in vocabulary.types:
        raise ModelFileError(
            "The GGUF file has a unigram tokenizer without a token for what is unknown "
            "(tokenizer.ggml.unknown_token_id)."
        )
    return vocabulary.types.index(TokenType.UNKNOWN)


def _add_template(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """RoBERTa's: bos and eos around a text, and eos twice between the texts of a pair."""
    bos = vocabulary.token_id("bos_token_id") if vocabulary.flag("add_bos_token", True) else None
    eos = vocabulary.token_id("eos_token_id") if vocabulary.flag("add_eos_token", True) else None
    names = {token_id: vocabulary.tokens[token_id] for token_id in (bos, eos) if token_id is not None}
    first = [] if bos is None else [names[bos]]
    last = [] if eos is None else [names[eos]]
    if names:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*first, "$A", *last],
            pair=[*first, "$A", *last, *last, "$B", *last],
            special_tokens=[(token, token_id) for token_id, token in names.items()],
        )
