"""Ids to text while they arrive. Never shows half a character; every token costs the same.

Hot path: called per output token. Vocabularies whose tokens stand for bytes go through an incremental
UTF-8 decoder; the rest are decoded in a window that slides along.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Protocol

from octavo.tokens.tokenizer import Tokenizer

MAX_WINDOW_TOKENS = 64
MAX_CHARACTER_BYTES = 4


class _Decoder(Protocol):
    def add(self, token_ids: Sequence[int]) -> str: ...

    def flush(self) -> str: ...


class Detokenizer:
    """Text of one answer. The prompt only tells how its first token joins on."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt_token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        shown_special_token_ids: Sequence[int] | None = None,
        spaces_between_special_tokens: bool = True,
    ) -> None:
        self._decoder: _Decoder
        shown = frozenset(shown_special_token_ids or ()) if skip_special_tokens else frozenset[int]()
        if tokenizer.has_token_bytes:
            # Such decoders join tokens without spaces, so the last option has nothing to decide.
            self._decoder = _ByteDecoder(tokenizer, prompt_token_ids, skip_special_tokens, shown)
        else:
            self._decoder = _WindowDecoder(
                tokenizer, prompt_token_ids, skip_special_tokens, spaces_between_special_tokens, shown
            )

    def add(self, token_ids: Sequence[int]) -> str:
        """Return the text that became certain."""
        return self._decoder.add(token_ids)

    def flush(self) -> str:
        """Return the rest at the end; bytes that never became a character show as U+FFFD."""
        return self._decoder.flush()


class _ByteDecoder:
    def __init__(
        self, tokenizer: Tokenizer, prompt: Sequence[int], skip_special: bool, shown: frozenset[int]
    ) -> None:
        self._pieces = tokenizer.pieces(skip_special, shown)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip_space = tokenizer.strips_first_space and not any(self._pieces[t] for t in prompt)
        self._is_plain = False
        """Nothing is half read and no space has to go: tokens that are whole characters just follow."""
        self._prime(prompt)

    def _prime(self, prompt: Sequence[int]) -> None:
        """A prompt may end inside a character that the answer completes."""
        tail = b""
        for token_id in reversed(prompt[-2 * MAX_CHARACTER_BYTES :]):
            tail = _as_bytes(self._pieces[token_id]) + tail
            if len(tail) >= MAX_CHARACTER_BYTES:
                break
        self._decode(tail[-MAX_CHARACTER_BYTES:])

    def add(self, token_ids: Sequence[int]) -> str:
        table = self._pieces
        pieces = [table[token_id] for token_id in token_ids]
        if self._is_plain:
            try:
                return "".join(pieces)  # type: ignore[arg-type]
            except TypeError:
                pass  # Bytes among them: a token that is part of a character.
        data = b"".join(map(_as_bytes, pieces))
        if self._strip_space and data:
            self._strip_space = False
            data = data.removeprefix(b" ")
        return self._decode(data)

    def _decode(self, data: bytes) -> str:
        text = self._utf8.decode(data)
        self._is_plain = not self._strip_space and not self._utf8.getstate()[0]
        return text

    def flush(self) -> str:
        rest = self._utf8.decode(b"", True)
        self._utf8.reset()
        return rest


def _as_bytes(piece: str | bytes) -> bytes:
    return piece if isinstance(piece, bytes) else piece.encode()


class _WindowDecoder:
    """Decodes the last shown token with its successors and shows what is new.

    ids[:start] are forgotten, ids[start:end] have been shown, ids[end:] not yet.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        skip_special: bool,
        keep_spaces: bool,
        shown: frozenset[int],
    ) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special and not shown
        self._shown_ids = shown
        """With any of these the others are left out by hand: the decoder only knows all or none."""
        self._keep_spaces = keep_spaces
        self._ids = list(prompt[-MAX_CHARACTER_BYTES:])
        self._end = len(self._ids)
        self._shown = self._decode(self._ids)
        self._after_special = False

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip_special)

    def add(self, token_ids: Sequence[int]) -> str:
        return "".join(self._add_one(token_id) for token_id in token_ids)

    def _add_one(self, token_id: int) -> str:
        is_special = self._tokenizer.is_special(token_id)
        if is_special and self._shown_ids and token_id not in self._shown_ids:
            return ""
        joins = is_special and self._after_special and not self._keep_spaces
        self._after_special = is_special
        self._ids.append(token_id)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") and len(self._ids) - self._end < MAX_WINDOW_TOKENS:
            return ""
        new = self._advance(text)
        return new.removeprefix(" ") if joins else new

    def _advance(self, text: str) -> str:
        new = text[len(self._shown) :]
        if new:
            self._ids = self._ids[self._end :]
            self._shown = self._decode(self._ids)
        elif len(self._ids) > MAX_WINDOW_TOKENS:
            # Tokens without text (special ones that are skipped) must not make the window grow.
            self._ids = self._ids[-1:]
            self._shown = self._decode(self._ids)
        self._end = len(self._ids)
        return new

    def flush(self) -> str:
        if self._end == len(self._ids):
            return ""
        return self._advance(self._decode(self._ids))
