"""Markers: literal strings to look for in text that is still arriving."""

from __future__ import annotations

import re
from functools import lru_cache


class Markers:
    """A set of markers. Finds the first one, and where one may just have begun."""

    def __init__(self, literals: tuple[str, ...]) -> None:
        longest_first = sorted(literals, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) if literals else r"(?!)")
        self._prefixes = {literal[:cut] for literal in literals for cut in range(1, len(literal))}
        self._longest_prefix = max(map(len, self._prefixes), default=0)
        starts = {literal[0] for literal in literals}
        self._starts = re.compile("[" + "".join(map(re.escape, sorted(starts))) + "]" if starts else r"(?!)")

    def begun_at(self, text: str, position: int, end: int) -> int:
        """Where text[position:end] may end with the beginning of a marker; `end` if nowhere."""
        match = self._starts.search(text, max(position, end - self._longest_prefix), end)
        while match is not None:
            if text[match.start() : end] in self._prefixes:
                return match.start()
            match = self._starts.search(text, match.start() + 1, end)
        return end


@lru_cache(maxsize=256)
def markers(*literals: str) -> Markers:
    """Compiled once per set."""
    return Markers(literals)
