"""Calls as Python would write them: [f(a=1), g()], or one per line."""

from __future__ import annotations

import re
from dataclasses import dataclass

from octavo.server.parsing.bodies.contract import MAX_NAME
from octavo.server.parsing.literals import PYTHON, Literals
from octavo.server.parsing.output import Output
from octavo.server.parsing.scanner import Reading, Scanner

_NAME = re.compile(r"[\w.\-]*")


@dataclass(frozen=True, kw_only=True)
class Pythonic:
    """A list of calls, or calls between the format's markers."""

    only_known: bool = False
    """Take it for a call only if there is a tool of that name: no marker says so."""
    wrapper: str = ""
    """A function that calls may stand in, which is none of the tools."""

    def read(self, scanner: Scanner, output: Output, opened_by: str) -> Reading[bool]:
        is_list = opened_by == "["
        if not is_list:
            yield from scanner.skip_space()
            is_list = (yield from scanner.accept("[")) is not None
        is_first = True
        while True:
            yield from scanner.skip_space()
            if not is_first:
                if is_list and (yield from scanner.accept("]")) is not None:
                    scanner.forget()
                    return True
                yield from scanner.accept(",")
                yield from scanner.skip_space()
            name = yield from self._name(scanner)
            is_wrapped = bool(self.wrapper) and name == self.wrapper and name not in output.schemas
            if is_wrapped:
                yield from scanner.skip_space()
                name = yield from self._name(scanner)
            if name is None or (self.only_known and name not in output.schemas):
                return False
            scanner.forget()
            output.call_begins(name)
            is_complete = yield from Literals(PYTHON, scanner, output).pairs(")", 0, "=")
            output.call_ends(is_complete=is_complete)
            if not is_complete:
                return True
            is_first = False
            scanner.record()
            if is_wrapped:
                yield from scanner.skip_space()
                yield from scanner.accept(")")
                scanner.record()

    def _name(self, scanner: Scanner) -> Reading[str | None]:
        """A name and the parenthesis behind it."""
        pieces: list[str] = []
        with scanner.within(MAX_NAME):
            while True:
                pieces.append(scanner.run(_NAME))
                if not scanner.is_empty or scanner.is_over:
                    break
                yield
        name = "".join(pieces)
        if not name or (yield from scanner.accept("(")) is None:
            return None
        return name
