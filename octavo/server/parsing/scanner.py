"""Scanner: text that arrives in pieces, read once from front to back.

Readers are generators: they `yield` where they need more text and are resumed when it is there. What has
been read is forgotten, so memory and time stay in proportion to the text. Whatever is held back lies within
a bound, behind which a reader sees the text as over; so nothing depends on how the text was cut.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from octavo.server.parsing.markers import Markers

T = TypeVar("T")
Reading = Generator[None, None, T]
"""A reader: waits by yielding and returns a T."""

MAX_RECORD = 2**16
"""Characters held back while it is not certain what they are."""

_SPACE = re.compile(r"\s*")


class Scanner:
    """The text not read yet: `text[position:end]`. While recording, also what was read since."""

    def __init__(self) -> None:
        self.text = ""
        self.position = 0
        self.end = 0
        self._offset = 0
        """Where `text` begins in all that came."""
        self._is_final = False
        self._record: list[str] | None = None
        self._record_bound: int | None = None
        self._local_bound: int | None = None

    def feed(self, text: str) -> None:
        self._offset += self.position
        self.text = self.text[self.position :] + text
        self.position = 0
        self._set_end()

    def finish(self) -> None:
        """No text comes any more."""
        self._is_final = True

    def _set_end(self) -> None:
        self.end = len(self.text)
        for bound in (self._record_bound, self._local_bound):
            if bound is not None:
                self.end = min(self.end, bound - self._offset)

    @property
    def is_empty(self) -> bool:
        return self.position >= self.end

    @property
    def is_over(self) -> bool:
        """Nothing comes behind `end`, or nothing that a reader within a bound may see."""
        return self._is_final or self._is_bounded

    @property
    def _is_bounded(self) -> bool:
        here = self._offset + self.end
        return here in (self._record_bound, self._local_bound)

    @contextmanager
    def within(self, limit: int) -> Iterator[None]:
        """Show only the next `limit` characters."""
        before = self._local_bound
        bound = self._offset + self.position + limit
        self._local_bound = bound if before is None else min(bound, before)
        self._set_end()
        try:
            yield
        finally:
            self._local_bound = before
            self._set_end()

    def record(self, already_read: str = "") -> None:
        """Keep what is read from now on, and `already_read` before it; show only MAX_RECORD characters."""
        self._record = [already_read]
        self._record_bound = self._offset + self.position + MAX_RECORD
        self._set_end()

    def forget(self) -> None:
        """It is certain what was read."""
        self._record = self._record_bound = None
        self._set_end()

    def recorded(self) -> str:
        """What was read since `record`, which ends here."""
        text = "".join(self._record or [])
        self.forget()
        return text

    def take(self, end: int) -> str:
        """Read up to `end`, a position in `text`."""
        piece = self.text[self.position : end]
        self.position = end
        if self._record is not None:
            self._record.append(piece)
        return piece

    def step_back(self, length: int) -> None:
        """Unread the last `length` characters, which the last `take` read."""
        self.position -= length
        if self._record is not None:
            self._record[-1] = self._record[-1][:-length]

    def piece(self, wanted: Markers) -> tuple[str, str | None]:
        """Read what surely comes before a marker, and the marker if it is there."""
        match = wanted.pattern.search(self.text, self.position, self.end)
        end = self.end if match is None else match.start()
        if not self.is_over:
            begun = wanted.begun_at(self.text, self.position, self.end)
            if begun <= end:
                return self.take(begun), None
        if match is None:
            return self.take(end), None
        return self.take(end), self.take(match.end())

    def until(self, wanted: Markers, limit: int) -> Reading[tuple[str, str] | None]:
        """Read up to a marker: (text before it, marker). None if it does not come within `limit`."""
        pieces: list[str] = []
        with self.within(limit):
            while True:
                text, marker = self.piece(wanted)
                pieces.append(text)
                if marker is not None:
                    return "".join(pieces), marker
                if self.is_over:
                    return None
                yield

    def skip_space(self) -> Reading[None]:
        """Read white space."""
        while True:
            match = _SPACE.match(self.text, self.position, self.end)
            assert match is not None, "it matches nothing as well"
            self.take(match.end())
            if not self.is_empty or self.is_over:
                return
            yield

    def peek(self, length: int = 1) -> Reading[str]:
        """The next characters, without reading them; fewer at the end."""
        while self.end - self.position < length and not self.is_over:
            yield
        return self.text[self.position : min(self.position + length, self.end)]

    def accept(self, *literals: str) -> Reading[str | None]:
        """Read one of `literals` if the text goes on with it; the longest wins."""
        while True:
            rest = self.end - self.position
            found: str | None = None
            may_come = False
            for literal in literals:
                if self.text.startswith(literal, self.position, self.end):
                    found = literal if found is None or len(literal) > len(found) else found
                elif rest < len(literal) and literal.startswith(self.text[self.position : self.end]):
                    may_come = True
            if not may_come or self.is_over:
                break
            yield
        if found is not None:
            self.take(self.position + len(found))
        return found

    def run(self, pattern: re.Pattern[str]) -> str:
        """Read what `pattern` matches of the text that is here; it may go on in the next piece."""
        match = pattern.match(self.text, self.position, self.end)
        return self.take(match.end()) if match is not None else ""
