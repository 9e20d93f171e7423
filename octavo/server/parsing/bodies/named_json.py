"""Calls as a name between markers and its arguments as JSON behind it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from octavo.server.parsing.bodies.contract import MAX_NAME
from octavo.server.parsing.json_text import pass_json
from octavo.server.parsing.markers import markers
from octavo.server.parsing.output import Output
from octavo.server.parsing.scanner import Reading, Scanner

_NAME = re.compile(r"[^\s{}\[\]<>\"]+")


@dataclass(frozen=True, kw_only=True)
class NamedJson:
    """`begins` NAME `name_ends` {...} `fences`."""

    sections: tuple[str, ...] = ()
    """Opening markers that stand before the first call's own `begins`."""
    begins: tuple[str, ...] = ()
    name_ends: tuple[str, ...]
    """Ends the name. "{" does too, and stays."""
    fences: tuple[str, ...] = ()
    """May stand around the arguments, such as ```json."""
    id_begins: tuple[str, ...] = ()
    """Name endings that an id of the call follows, up to one of the others."""
    name_pattern: str = r"(?P<name>.+)"
    """Finds the name in what stands there; a group `id` is the call's id."""

    def read(self, scanner: Scanner, output: Output, opened_by: str) -> Reading[bool]:
        if opened_by in self.sections:
            yield from scanner.skip_space()
            if (yield from scanner.accept(*self.begins)) is None:
                return False
        head = yield from self._head(scanner)
        match = None if head is None else re.fullmatch(self.name_pattern, head[0].strip(), re.DOTALL)
        if head is None or match is None or _NAME.fullmatch(match["name"]) is None:
            return False
        scanner.forget()
        output.call_begins(match["name"], head[1] or match.groupdict().get("id"))
        yield from scanner.skip_space()
        if self.fences and (yield from scanner.accept(*self.fences)) is not None:
            yield from scanner.skip_space()
        if (yield from scanner.peek()) == "{":
            is_complete = yield from pass_json(scanner, output.arguments)
        else:
            # Whatever follows instead of arguments: there are none. Nothing follows: they were cut off.
            is_complete = not scanner.is_over
            output.arguments("{}" if is_complete else "")
        output.call_ends(is_complete=is_complete)
        return True

    def _head(self, scanner: Scanner) -> Reading[tuple[str, str | None] | None]:
        """The text of the name, and of an id if one stands there."""
        ends = (*self.name_ends, *self.id_begins, "{")
        found = yield from scanner.until(markers(*ends), MAX_NAME)
        if found is None:
            return None
        name, end = found
        given_id = None
        if end in self.id_begins:
            found = yield from scanner.until(markers(*self.name_ends, "{"), MAX_NAME)
            if found is None:
                return None
            given_id, end = found[0].strip(), found[1]
        if end == "{":
            scanner.step_back(1)
        return name, given_id
