"""Where tokens begin in the text that they make: what the completions API calls text_offset."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from octavo.server.engine_port import TokenizerPort


class TextOffsets:
    """Of one text that grows, in characters. Tokens that share a character begin at the same place."""

    def __init__(self, tokenizer: TokenizerPort, *, skips_special: bool, strips_space: bool = False) -> None:
        """skips_special: special tokens are not part of the text. strips_space: nor is a space that its
        first token begins with."""
        self._tokenizer = tokenizer
        self._skips_special = skips_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strips_space = strips_space
        self._end = 0

    def of(self, token_ids: Sequence[int], text: str | None = None) -> list[int]:
        """Offsets of the next tokens. text: what a caller wrote, which shows the special tokens that are
        written out in it and no others."""
        return [self._pass(token_id, text) for token_id in token_ids]

    def _pass(self, token_id: int, text: str | None) -> int:
        begin = self._end
        if not self._is_hidden(token_id, text):
            self._end += len(self._decoder.decode(self._shown(token_id, text)))
        return begin

    def _shown(self, token_id: int, text: str | None) -> bytes:
        data = self._tokenizer.token_bytes(token_id)
        if not self._strips_space or not data:
            return data
        self._strips_space = False
        is_callers = text is not None and text.encode("utf-8", "replace").startswith(data)
        return data if is_callers else data.removeprefix(b" ")

    def _is_hidden(self, token_id: int, text: str | None) -> bool:
        if not self._tokenizer.is_special(token_id):
            return False
        if text is None:
            return self._skips_special
        return not text.startswith(self._tokenizer.token_text(token_id), self._end)
