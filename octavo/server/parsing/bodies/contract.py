"""What a body is: a reader of everything behind a format's opening marker."""

from __future__ import annotations

from typing import Protocol

from octavo.server.parsing.output import Output
from octavo.server.parsing.scanner import Reading, Scanner

MAX_NAME = 256
"""Characters of a tool's or an argument's name."""


class Body(Protocol):
    """Immutable: one serves all answers of its format at once."""

    def read(self, scanner: Scanner, output: Output, opened_by: str) -> Reading[bool]:
        """Read from behind the marker `opened_by` to the end of a call, or of a list of calls.

        False if this is no call, or no further one: what the scanner has recorded is then plain text. A
        body begins a new record before each further call and forgets it once the call's name is certain,
        for from there on events go out and nothing is taken back.
        """
