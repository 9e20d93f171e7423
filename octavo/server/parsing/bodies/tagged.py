"""Calls whose arguments stand between tags, one by one, as bare text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from octavo.server.parsing.arguments import is_text, property_schema, typed
from octavo.server.parsing.bodies.contract import MAX_NAME
from octavo.server.parsing.json_text import escaped
from octavo.server.parsing.markers import Markers, markers
from octavo.server.parsing.output import Output
from octavo.server.parsing.scanner import MAX_RECORD, Reading, Scanner

_HEAD = re.compile(
    r"""\s*=?\s*(?:"(?P<double>[^"]+)"|'(?P<single>[^']+)'|(?P<bare>[^"'<>{}]+?))"""
    r"""(?:\s+string\s*=\s*["']?(?P<string>\w+)["']?)?\s*"""
)
"""A name behind a tag's beginning, maybe quoted; DeepSeek adds whether the value is a string."""


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """`begin` NAME `name_ends`, then arguments: `key_begin` KEY `key_end` `value_begin` VALUE `value_end`."""

    sections: tuple[str, ...] = ()
    """Opening markers that stand before the first call's own `begin`."""
    begin: str = ""
    name_ends: tuple[str, ...] = (">",)
    key_begin: str
    key_end: str = ">"
    value_begin: str = ""
    value_end: str
    end: tuple[str, ...]
    """Behind the last argument."""
    has_lines: bool = False
    """Values stand on lines of their own: one line end on either side is not theirs."""

    def read(self, scanner: Scanner, output: Output, opened_by: str) -> Reading[bool]:
        if opened_by in self.sections and self.begin:
            yield from scanner.skip_space()
            if (yield from scanner.accept(self.begin)) is None:
                return False
        elif not self.begin:
            yield from scanner.skip_space()
        # A call without arguments may end right behind its name.
        tags = tuple(tag for tag in (self.key_begin, *self.end) if tag not in self.name_ends)
        found = yield from scanner.until(markers(*self.name_ends, *tags), MAX_NAME)
        head = None if found is None else _HEAD.fullmatch(found[0])
        if found is None or head is None:
            return False
        if found[1] in tags:
            scanner.step_back(len(found[1]))
        name = _name(head)
        scanner.forget()
        output.call_begins(name)
        schema = output.schemas.get(name)
        output.arguments("{")
        separator = ""
        while True:
            yield from scanner.skip_space()
            tag = yield from scanner.accept(self.key_begin, *self.end)
            if tag != self.key_begin:
                break
            output.arguments(separator)
            if not (yield from self._argument(scanner, output, schema)):
                output.call_ends(is_complete=False)
                return True
            separator = ", "
        # Whatever follows instead of the end tag: all arguments there are have been read.
        is_complete = tag is not None or not scanner.is_over
        output.arguments("}" if is_complete else "")
        output.call_ends(is_complete=is_complete)
        return True

    def _argument(self, scanner: Scanner, output: Output, schema: Any) -> Reading[bool]:
        found = yield from scanner.until(markers(self.key_end), MAX_NAME)
        head = None if found is None else _HEAD.fullmatch(found[0])
        if head is None:
            return False
        if self.value_begin:
            yield from scanner.skip_space()
            if (yield from scanner.accept(self.value_begin)) is None:
                return False
        name = _name(head)
        output.arguments(f'"{escaped(name)}": ')
        wanted = property_schema(schema, name)
        if head["string"] is not None:
            wanted = {"type": "string"} if head["string"].lower() == "true" else {}
        if is_text(wanted):
            return (yield from self._pass_text(scanner, output, ""))
        return (yield from self._pass_typed(scanner, output, wanted))

    def _pass_text(self, scanner: Scanner, output: Output, begun: str) -> Reading[bool]:
        """A string goes out as it comes; `begun` is what was read of it already."""
        end = self._end()
        output.arguments('"' + escaped(begun))
        if self.has_lines and not begun:
            yield from scanner.accept("\n")
        while True:
            text, marker = scanner.piece(end)
            output.arguments(escaped(text))
            if marker is not None:
                output.arguments('"')
                return True
            if scanner.is_over:
                return False
            yield

    def _pass_typed(self, scanner: Scanner, output: Output, schema: Any) -> Reading[bool]:
        """Other values are held until they are whole, unless they are too long to hold."""
        if self.has_lines:
            yield from scanner.accept("\n")
        pieces: list[str] = []
        end = self._end()
        with scanner.within(MAX_RECORD):
            while True:
                text, marker = scanner.piece(end)
                pieces.append(text)
                if marker is not None or scanner.is_over:
                    break
                yield
        text = "".join(pieces)
        if marker is not None:
            output.arguments(typed(text, schema))
            return True
        if len(text) < MAX_RECORD:
            # The answer is over, the value is not: as far as it came.
            output.arguments(text)
            return False
        return (yield from self._pass_text(scanner, output, text))

    def _end(self) -> Markers:
        if self.has_lines:
            return markers("\n" + self.value_end, self.value_end)
        return markers(self.value_end)


def _name(head: re.Match[str]) -> str:
    name: str = head["double"] or head["single"] or head["bare"]
    return name.strip()
