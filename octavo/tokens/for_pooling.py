"""Texts and pairs of texts to ids, cut where they are too long: what models that embed and score need."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Encoding

from octavo.base.errors import RequestError
from octavo.tokens.library_errors import as_request_errors
from octavo.tokens.pair_template import Encoded, PairTemplate, Side, too_long
from octavo.tokens.tokenizer import Tokenizer

Text = str | tuple[str, str]


class PoolingEncoder:
    """lowercases: the model wants its texts in lower case. pairs: how pairs are written, if a template says
    that; else as the tokenizer joins them.
    """

    def __init__(self, tokenizer: Tokenizer, *, lowercases: bool, pairs: PairTemplate | None = None) -> None:
        self._tokenizer = tokenizer
        self._lowercases = lowercases
        self._pairs = pairs

    def encode(self, texts: Sequence[Text], limit: int, keep: int | None, side: Side) -> list[Encoded]:
        """All at once, in threads. All are pairs, or none is.

        keep: cut to so many tokens; those that the tokenizer adds stay. None: a text that surely has more
        than `limit` tokens is refused before it is tokenized.
        """
        if not texts:
            return []
        if not self._tokenizer.has_text:
            raise RequestError("This engine runs without a tokenizer: give token ids.", param="input")
        if self._pairs is not None and isinstance(texts[0], tuple):
            return self._pairs.encode([text for text in texts if isinstance(text, tuple)], limit, keep, side)
        texts = [self._bounded(text, limit, keep, side) for text in texts]
        with as_request_errors("input"):
            encodings = self._tokenizer.backend.encode_batch_fast(list(texts))
        if keep is not None:
            encodings = [
                self._cut(text, keep, side) if len(encoding.ids) > keep else encoding
                for text, encoding in zip(texts, encodings, strict=True)
            ]
        return [
            Encoded(encoding.ids, _second_from(encoding) if isinstance(text, tuple) else None)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _bounded(self, text: Text, limit: int, keep: int | None, side: Side) -> Text:
        if isinstance(text, tuple):
            first, second = (self._bounded(part, limit, keep, side) for part in text)
            assert isinstance(first, str) and isinstance(second, str), "parts of a pair are no pairs"
            return first, second
        most = self._tokenizer.max_chars_for(limit if keep is None else keep + 1)
        if len(text) > most and keep is None:
            raise too_long(len(text), limit, most)
        # Text past this point cannot reach the kept tokens.
        text = text[:most] if side == "right" else text[-most:]
        return text.lower() if self._lowercases else text

    def _cut(self, text: Text, keep: int, side: Side) -> Encoding:
        """Tokens of the text go; those the tokenizer adds stay. The longer one of a pair gives more."""
        backend = self._tokenizer.backend
        parts = [text] if isinstance(text, str) else list(text)
        encodings = [backend.encode(part, add_special_tokens=False) for part in parts]
        room = keep - backend.num_special_tokens_to_add(len(parts) == 2)
        if room < len(parts):
            raise RequestError(
                f"truncate_prompt_tokens is {keep}: no room for text beside what the tokenizer adds.",
                param="truncate_prompt_tokens",
            )
        shares = _shares([len(one.ids) for one in encodings], room)
        for encoding, count in zip(encodings, shares, strict=True):
            encoding.truncate(count, direction=side)
        return backend.post_process(encodings[0], encodings[1] if len(encodings) > 1 else None)


def _shares(lengths: list[int], room: int) -> list[int]:
    """How much of each text stays."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    first, second = lengths
    if first + second <= room:
        return lengths
    shorter = min(first, second, room // 2)
    return (
        [room - shorter, shorter] if first > second else [min(first, room // 2), room - min(first, room // 2)]
    )


def _second_from(encoding: Encoding) -> int | None:
    """The first token of type 1."""
    return encoding.type_ids.index(1) if 1 in encoding.type_ids else None
