"""Where tokens begin in the text that they make: what the completions API calls text_offset."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from octavo.server.engine_port import TokenizerPort


class TextOffsets:
    """Of one text that grows, in characters. Tokens that share a character begin at the same place."""

    def __init__(self, tokenizer: TokenizerPort, *, skips_special: bool) -> None:
        """skips_special: special tokens are not part of the text."""
        self._tokenizer = tokenizer
        self._skips_special = skips_special
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = 0

    def of(self, token_ids: Sequence[int], text: str | None = None) -> list[int]:
        """Offsets of the next tokens. text: what a caller wrote, which shows the special tokens that are
        written out in it and no others."""
        return [self._pass(token_id, text) for token_id in token_ids]

    def _pass(self, token_id: int, text: str | None) -> int:
        begin = self._end
        if not self._is_hidden(token_id, text):
            self._end += len(self._decoder.decode(self._tokenizer.token_bytes(token_id)))
        return begin

    def _is_hidden(self, token_id: int, text: str | None) -> bool:
        if not self._tokenizer.is_special(token_id):
            return False
        if text is None:
            return self._skips_special
        return not text.startswith(self._tokenizer.token_text(token_id), self._end)
