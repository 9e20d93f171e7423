"""PromptPositions: a prompt's log-probabilities in the shape that callers get, made piece by piece.

Those of 32,768 tokens are 100,000 objects and more, a tenth of a second of Python: too much for one turn of
an event loop.
"""

from __future__ import annotations

from octavo.engine.outputs import LogprobsOnePosition
from octavo.engine.sample import logprobs_at
from octavo.messages.result import TokenLogprobs
from octavo.tokens.tokenizer import Tokenizer

PIECE = 4096
"""Log-probabilities, some 3 ms."""


class PromptPositions:
    """One entry for each token of the prompt; None for the first, which nothing tells of."""

    def __init__(self, tokenizer: Tokenizer, told: list[TokenLogprobs]) -> None:
        """told: of the second token and all that follow."""
        self._tokenizer = tokenizer
        self._told = told
        self._made: list[LogprobsOnePosition | None] = [None]

    def make_more(self) -> bool:
        """Make a piece. False: all of them are there."""
        begin = len(self._made) - 1
        if begin == len(self._told):
            return False
        end = begin + max(1, PIECE // len(self._told[begin].token_ids))
        self._made += [logprobs_at(self._tokenizer, position) for position in self._told[begin:end]]
        return True

    def all(self) -> list[LogprobsOnePosition | None]:
        """Makes what is not there yet."""
        while self.make_more():
            pass
        return self._made
