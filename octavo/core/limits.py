"""Limits: each may lower the number of tokens that a request computes in a step. About twenty lines each.

The scheduler asks every active limit, then for blocks, and only then lets the limits commit: `cap`
changes nothing, so nothing has to be taken back. Runs per request and step.
"""

# ruff: noqa: ARG002  (a limit looks only at what concerns it)

from __future__ import annotations

from abc import ABC, abstractmethod

from octavo.core.request import Request


class Limit(ABC):
    """Contract. Limits of a kind that keeps books (slots, buffers) override `commit`."""

    bounds_single_tokens = True
    """Whether it may refuse one token while the step has room. Most requests want one: ask only who may."""

    @abstractmethod
    def cap(self, request: Request, want: int, budget: int) -> int:
        """How many of `want` tokens may run now; `budget` tokens are left in the step. Changes nothing."""

    def commit(self, request: Request, granted: int) -> None:  # noqa: B027
        """The request runs `granted` tokens in this step."""


class TokenBudget(Limit):
    """A step computes at most so many tokens; a longer prompt is spread over steps."""

    bounds_single_tokens = False

    def cap(self, request: Request, want: int, budget: int) -> int:
        return want if want <= budget else budget


class WholePrompt(Limit):
    """Chunked prefill is off: a request enters with all that it wants, or not in this step.

    What a form forces on one that runs is no prompt, and may come in pieces.
    """

    bounds_single_tokens = False

    def cap(self, request: Request, want: int, budget: int) -> int:
        return want if want <= budget or request.num_computed else 0


class ChunkSize(Limit):
    """No request computes more than `max_tokens` in one step, so that long prompts let others through."""

    bounds_single_tokens = False

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens

    def cap(self, request: Request, want: int, budget: int) -> int:
        return min(want, self._max_tokens)


class LengthLimit(Limit):
    """Nothing past the last token that a request may have is computed.

    Its last token needs no computing, and prompt + max_tokens is within the model's length since
    admission. Only when steps overlap can a request with all its tokens on the way still be running.
    """

    def cap(self, request: Request, want: int, budget: int) -> int:
        return min(want, request.max_total - 1 - request.num_computed)
