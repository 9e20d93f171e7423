"""What a parameter is called: messages say OpenAI's name for it, other protocols have their own."""

from __future__ import annotations

import re
from collections.abc import Mapping


class Wording:
    """Puts a protocol's own names into a message, word by word."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = dict(names)
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile(r"\b(" + "|".join(map(re.escape, longest_first)) + r")\b")

    def __call__(self, message: str) -> str:
        return self._pattern.sub(lambda found: self._names[found[0]], message)
