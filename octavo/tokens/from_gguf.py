"""Builds a tokenizer from GGUF metadata, with the ids of the tokenizer the model was trained with.

Knows GGUF's key names and token types; knows nothing of files or tensors. The vocabulary kinds are
byte-level BPE ("gpt2"), SentencePiece-style BPE ("llama", "gemma4"), WordPiece ("bert") and Unigram ("t5").
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from octavo.base.errors import ModelFileError
from octavo.tokens.gguf_unigram import build_unigram
from octavo.tokens.gguf_vocabulary import TokenType, Vocabulary
from octavo.tokens.parts import TokenizerParts
from octavo.tokens.pretokenizers import DEFAULT, PRE_TOKENIZERS, PreTokenizer
from octavo.tokens.turn_ends import turn_ends

log = logging.getLogger(__name__)

SPACE = "▁"
_PHI3_PLAIN = ("<unk>", "<s>", "<|endoftext|>")
"""Special tokens of Phi 3 that leave white space alone."""


def build_from_gguf(metadata: Mapping[str, Any]) -> TokenizerParts:
    """Build the tokenizer a GGUF file describes. Raises ModelFileError when the file is wrong or unknown."""
    vocabulary = Vocabulary(metadata)
    build = _BUILDERS.get(vocabulary.model)
    if build is None:
        raise ModelFileError(
            f"The GGUF file has a tokenizer of kind {vocabulary.model!r}. Supported: {', '.join(_BUILDERS)}. "
            "Give a folder with a tokenizer.json as --tokenizer."
        )
    try:
        tokenizer, add_bos = build(vocabulary)
    except ModelFileError:
        raise
    except (
        Exception
    ) as error:  # the library raises bare Exception for vocabularies that contradict themselves
        raise ModelFileError(f"The tokenizer in the GGUF file is broken: {error}") from error
    if vocabulary.model != "bert":
        _add_special_tokens(tokenizer, vocabulary)
    if vocabulary.model not in ("bert", "t5"):
        _add_template(tokenizer, vocabulary, add_bos)
    return _parts(tokenizer, vocabulary)


def _parts(tokenizer: Tokenizer, vocabulary: Vocabulary) -> TokenizerParts:
    stated = [vocabulary.token_id(key) for key in ("eos_token_id", "eot_token_id", "eom_token_id")]
    ends = [*stated, *turn_ends(vocabulary.tokens)]
    named: dict[str, str] = {}
    for name, key in (
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
    ):
        token_id = vocabulary.token_id(key)
        if token_id is not None:
            named[name] = vocabulary.tokens[token_id]
    return TokenizerParts(
        tokenizer=tokenizer,
        bos_token_id=vocabulary.token_id("bos_token_id"),
        eos_token_ids=list(dict.fromkeys(end for end in ends if end is not None)),
        special_tokens=named,
        chat_templates=vocabulary.chat_templates(),
        vocab_size=len(vocabulary.tokens),
    )


@lru_cache(maxsize=64)
def _warn_unknown_pre(name: str) -> None:
    log.warning(
        "GGUF pre-tokenizer %r is unknown; splitting text as GPT-2 does. Ids may differ from those the model "
        "was trained with. A folder with the model's tokenizer.json as --tokenizer avoids this.",
        name,
    )


def _pre_tokenizer_facts(name: str) -> PreTokenizer:
    facts = PRE_TOKENIZERS.get(name)
    if facts is None:
        if name:
            _warn_unknown_pre(name)
        return DEFAULT
    return facts


def _byte_level(vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    facts = _pre_tokenizer_facts(vocabulary.pre)
    merges = vocabulary.merges()
    if merges is None:
        raise ModelFileError("The GGUF file has a byte-level tokenizer without tokenizer.ggml.merges.")
    vocab = {token: index for index, token in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=facts.ignore_merges))
    if facts.nfc:
        tokenizer.normalizer = normalizers.NFC()
    steps: list[Any] = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in facts.splits]
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, facts.add_bos


def _sentencepiece(vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    is_gemma = vocabulary.architecture.startswith("gemma") or vocabulary.model == "gemma4"
    # Some files write runs of spaces as such; the merges need the visible sign.
    known = set(vocabulary.tokens)
    vocabulary.tokens = [
        SPACE * len(token)
        if len(token) > 1 and not token.strip(" ") and SPACE * len(token) not in known
        else token
        for token in vocabulary.tokens
    ]
    vocab = {token: index for index, token in enumerate(vocabulary.tokens)}
    merges = vocabulary.merges()
    if merges is None:
        merges = _merges_from_scores(vocabulary, vocab, by_position=is_gemma)
    unknown = vocabulary.token_id("unknown_token_id")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            unk_token=None if unknown is None else vocabulary.tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    add_prefix = vocabulary.flag("add_space_prefix", not is_gemma)
    decoding: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if is_gemma:
        tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    elif add_prefix and not _has_turns_as_tokens(vocabulary):
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        )
    else:
        scheme = "first" if add_prefix else "never"
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    if add_prefix:
        decoding.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(decoding)
    return tokenizer, vocabulary.model == "llama"


def _has_turns_as_tokens(vocabulary: Vocabulary) -> bool:
    """As Mistral's has from version 3 on: a space stands in front of a text, not behind special tokens."""
    turn = vocabulary.tokens.index("[INST]") if "[INST]" in vocabulary.tokens else None
    return turn is not None and vocabulary.type_of(turn) == TokenType.CONTROL


def _merges_from_scores(
    vocabulary: Vocabulary, vocab: Mapping[str, int], by_position: bool
) -> list[tuple[str, str]]:
    """Recover merges: every way to cut a piece in two pieces, the best-scored pieces first.

    by_position: earlier pieces are better; some vocabularies' scores do not follow the merge order.
    """
    if not by_position and len(vocabulary.scores) != len(vocabulary.tokens):
        raise ModelFileError(
            f"The GGUF file lists {len(vocabulary.tokens)} tokens, {len(vocabulary.scores)} scores and no "
            "merges; a SentencePiece tokenizer needs a score for every token."
        )
    # Control and byte tokens never come out of text, or a user could write one.
    outside = {TokenType.CONTROL, TokenType.BYTE, TokenType.UNKNOWN, TokenType.UNUSED}
    usable = {
        token for index, token in enumerate(vocabulary.tokens) if vocabulary.type_of(index) not in outside
    }
    scores = range(len(vocab), 0, -1) if by_position else vocabulary.scores
    best_first = sorted(usable, key=lambda token: (-scores[vocab[token]], vocab[token]))
    return [
        (token[:cut], token[cut:])
        for token in best_first
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in usable and token[cut:] in usable
    ]


def _word_piece(vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    """BERT: GGUF marks the starts of words where the original marks their continuations."""
    vocab: dict[str, int] = {}
    for index, token in enumerate(vocabulary.tokens):
        is_marker = token.startswith("[") and token.endswith("]") and len(token) > 2
        if token.startswith(SPACE):
            token = token[len(SPACE) :]
        elif not is_marker:
            token = "##" + token
        vocab.setdefault(token, index)
    unknown = vocabulary.token_id("unknown_token_id")
    unk_token = "[UNK]" if unknown is None else vocabulary.tokens[unknown]
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token=unk_token))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    first = vocabulary.first_token_id("cls_token_id", "bos_token_id", token="[CLS]")
    last = vocabulary.first_token_id("seperator_token_id", "eos_token_id", token="[SEP]")
    names = [(vocabulary.tokens[index], index) for index in (first, last) if index is not None]
    marks = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokenizer.add_special_tokens([AddedToken(mark, normalized=False) for mark in marks if mark in vocab])
    if len(names) == 2:
        (cls, cls_id), (sep, sep_id) = names
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}",
            pair=f"{cls} $A {sep} $B:1 {sep}:1",
            special_tokens=[(cls, cls_id), (sep, sep_id)],
        )
    return tokenizer, False


def _add_special_tokens(tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """Control tokens become special ones, user-defined tokens are kept whole but are ordinary text."""
    named = {
        *(
            vocabulary.token_id(f"{name}_token_id")
            for name in ("bos", "eos", "eot", "eom", "unknown", "padding")
        ),
        *turn_ends(vocabulary.tokens),
    }
    added = []
    for index, token in enumerate(vocabulary.tokens):
        kind = vocabulary.type_of(index)
        is_special = kind == TokenType.CONTROL or index in named
        if is_special or kind == TokenType.USER_DEFINED:
            takes_space = vocabulary.is_phi3 and token not in _PHI3_PLAIN
            added.append(
                AddedToken(
                    token,
                    normalized=False,
                    special=is_special,
                    lstrip=index == vocabulary.spaced_mask,
                    rstrip=takes_space,
                )
            )
    tokenizer.add_tokens(added)


def _add_template(tokenizer: Tokenizer, vocabulary: Vocabulary, add_bos_default: bool) -> None:
    """Put bos and eos around text where the file asks for it."""
    bos, eos = vocabulary.token_id("bos_token_id"), vocabulary.token_id("eos_token_id")
    add_bos = vocabulary.flag("add_bos_token", add_bos_default) and bos is not None
    add_eos = vocabulary.flag("add_eos_token", False) and eos is not None
    around: list[tuple[str, int]] = []
    single, pair = "$A:0", "$A:0 $B:1"
    if add_bos:
        assert bos is not None, "add_bos is set only when there is one"
        around.append((vocabulary.tokens[bos], bos))
        single, pair = f"{vocabulary.tokens[bos]}:0 {single}", f"{vocabulary.tokens[bos]}:0 {pair}"
    if add_eos:
        assert eos is not None, "add_eos is set only when there is one"
        around.append((vocabulary.tokens[eos], eos))
        single, pair = f"{single} {vocabulary.tokens[eos]}:0", f"{pair} {vocabulary.tokens[eos]}:1"
    if around:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=list(dict.fromkeys(around))
        )


def _unigram(vocabulary: Vocabulary) -> tuple[Tokenizer, bool]:
    return build_unigram(vocabulary), True


_BUILDERS: dict[str, Callable[[Vocabulary], tuple[Tokenizer, bool]]] = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "gemma4": _sentencepiece,
    "bert": _word_piece,
    "t5": _unigram,
}
