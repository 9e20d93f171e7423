"""Gemma's calls: call:NAME{key:value,...} with strings between markers of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from octavo.server.parsing.bodies.contract import MAX_NAME
from octavo.server.parsing.literals import Dialect, Literals
from octavo.server.parsing.markers import markers
from octavo.server.parsing.output import Output
from octavo.server.parsing.scanner import Reading, Scanner

_NAME = re.compile(r"\s*(?:call:)?\s*(?P<name>[\w.\-:]+)\s*")


@dataclass(frozen=True, kw_only=True)
class Braces:
    """One call."""

    quote: str

    @property
    def dialect(self) -> Dialect:
        return Dialect(
            quotes=(self.quote, '"'),
            has_escapes=False,
            words=(("true", "true"), ("false", "false"), ("null", "null"), ("None", "null")),
        )

    def read(self, scanner: Scanner, output: Output, opened_by: str) -> Reading[bool]:  # noqa: ARG002
        found = yield from scanner.until(markers("{"), MAX_NAME)
        match = None if found is None else _NAME.fullmatch(found[0])
        if match is None:
            return False
        scanner.forget()
        output.call_begins(match["name"])
        is_complete = yield from Literals(self.dialect, scanner, output).pairs("}", 0)
        output.call_ends(is_complete=is_complete)
        return True
