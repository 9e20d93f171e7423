"""Trials: finding out which request makes steps fail, by running halves of the suspects alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from octavo.core.request import Request


class Trials:
    """Groups of suspects, tried one after the other. A request is cleared when it gets its next token.

    A culprit among n requests is found in about 2 log2(n) steps; nobody else loses more than time.
    """

    def __init__(self) -> None:
        self._groups: list[set[Request]] = []
        self._current: set[Request] | None = None

    @property
    def is_open(self) -> bool:
        """Somebody is suspected, or a trial has just ended and `next_group` was not told yet."""
        return bool(self._groups) or self._current is not None

    def suspect(self, requests: Sequence[Request]) -> None:
        """A step of these, and perhaps of others, failed: try each half alone, before any other suspects."""
        for request in requests:
            self.clear(request)
        middle = len(requests) // 2
        self._groups[:0] = [set(requests[:middle]), set(requests[middle:])]

    def clear(self, request: Request) -> None:
        """It got a token, or it is over."""
        for group in self._groups:
            group.discard(request)

    def next_group(self) -> tuple[Collection[Request] | None, bool]:
        """Who may run now (None: everybody), and whether that is news."""
        self._groups = [group for group in self._groups if group]
        before, self._current = self._current, self._groups[0] if self._groups else None
        return self._current, self._current is not before
