"""Which tokens an answer's text is made of, so that their log-probabilities stand beside it.

Thoughts, markers and calls are tokens too, and a parser gives text later than its tokens came. So the
tokens wait here until their text is told; a token belongs to a text if their bytes overlap.
"""

from __future__ import annotations

from octavo.engine.outputs import LogprobsOnePosition
from octavo.server.engine_port import TokenizerPort
from octavo.server.openai.logprobs import LogprobFormat
from octavo.server.openai.schema.chat import TokenLogprob

MAX_WAITING = 4096
"""Tokens without text beyond this are forgotten, the oldest first."""


class TokenLogprobs:
    """Takes tokens as they come and gives them back with their text."""

    def __init__(self, tokenizer: TokenizerPort, top: int) -> None:
        self._tokenizer = tokenizer
        self._format = LogprobFormat(tokenizer, False)
        self._top = top
        self._waiting: list[tuple[int, LogprobsOnePosition]] = []

    def came(self, token_ids: list[int], positions: list[LogprobsOnePosition] | None) -> None:
        if positions is not None:
            self._waiting.extend(zip(token_ids, positions, strict=True))
            del self._waiting[:-MAX_WAITING]

    def of(self, text: str) -> list[TokenLogprob]:
        """The tokens of `text`, which is the next text that was told. What came before it is dropped."""
        pieces = [self._tokenizer.token_bytes(token_id) for token_id, _ in self._waiting]
        wanted = text.encode()
        begin = b"".join(pieces).find(wanted)
        if begin < 0:  # Bytes that are no text were replaced: what waits is the best guess.
            return self._take(0, len(pieces))
        end = begin + len(wanted)
        first = last = 0
        position = 0
        for index, piece in enumerate(pieces):
            if position < end:
                last = index + 1
            position += len(piece)
            if position <= begin:
                first = index + 1
        return self._take(first, last)

    def _take(self, first: int, last: int) -> list[TokenLogprob]:
        taken = self._waiting[first:last]
        del self._waiting[:last]
        return self._format.chat([token for token, _ in taken], [at for _, at in taken], self._top).content

    def drop(self) -> None:
        """The text was no answer."""
        self._waiting.clear()
