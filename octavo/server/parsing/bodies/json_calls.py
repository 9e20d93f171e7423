"""Calls as JSON objects: {"name": "f", "arguments": {...}}, alone or in a list."""

from __future__ import annotations

import json
from dataclasses import dataclass

from octavo.server.parsing.bodies.contract import MAX_NAME
from octavo.server.parsing.json_text import pass_json, read_json, read_string, string_of
from octavo.server.parsing.output import Output
from octavo.server.parsing.scanner import Reading, Scanner

MAX_FIELDS = 64
MAX_NESTING = 2
OTHER_KEYS = ("type", "id", "index", "name", "arguments", "parameters", "function")
"""What a call may hold beside, or twice."""


@dataclass
class _Call:
    """What is known of a call while its object is read."""

    is_sure: bool
    """A marker said that it is a call."""
    name: str | None = None
    arguments: str | None = None
    """Held because they came before the name."""
    call_id: str | None = None
    has_begun: bool = False


@dataclass(frozen=True, kw_only=True)
class JsonCalls:
    """One object or a list of objects."""

    name_keys: tuple[str, ...] = ("name",)
    argument_keys: tuple[str, ...] = ("arguments", "parameters")
    id_keys: tuple[str, ...] = ()
    separators: tuple[str, ...] = (",",)
    unsure: tuple[str, ...] = ()
    """Openings behind which it is a call only if there is a tool of that name and it has arguments."""

    def read(self, scanner: Scanner, output: Output, opened_by: str) -> Reading[bool]:
        if opened_by not in ("{", "["):
            yield from scanner.skip_space()
        is_list = opened_by == "[" or (opened_by != "{" and (yield from scanner.accept("[")) is not None)
        is_sure = opened_by not in self.unsure
        if not (yield from self._object(scanner, output, opened_by == "{", is_sure)):
            return False
        while is_sure and not is_list:
            # Some write one object per line between their markers.
            scanner.record()
            yield from scanner.skip_space()
            if (yield from scanner.peek()) != "{":
                return False
            if not (yield from self._object(scanner, output, False, is_sure)):
                return False
        while is_list:
            scanner.record()
            yield from scanner.skip_space()
            if (yield from scanner.accept("]")) is not None:
                scanner.forget()
                return True
            yield from scanner.accept(*self.separators)
            if not (yield from self._object(scanner, output, False, is_sure)):
                return False
        return True

    def _object(self, scanner: Scanner, output: Output, is_open: bool, is_sure: bool) -> Reading[bool]:
        call = _Call(is_sure=is_sure)
        is_complete = yield from self._fields(scanner, output, call, is_open, 0)
        if not call.has_begun:
            if call.name is None or not is_complete or (not is_sure and call.arguments is None):
                return False
            self._begin(scanner, output, call)
            output.arguments(_as_object(call.arguments))
        output.call_ends(is_complete=is_complete)
        return True

    def _fields(
        self, scanner: Scanner, output: Output, call: _Call, is_open: bool, nesting: int
    ) -> Reading[bool]:
        """Read an object; True when its end was reached."""
        yield from scanner.skip_space()
        if not is_open and (yield from scanner.accept("{")) is None:
            return False
        for _ in range(MAX_FIELDS):
            yield from scanner.skip_space()
            if (yield from scanner.accept("}")) is not None:
                return True
            yield from scanner.accept(",")
            yield from scanner.skip_space()
            key = yield from read_string(scanner, MAX_NAME)
            yield from scanner.skip_space()
            if key is None or (yield from scanner.accept(":")) is None:
                return False
            yield from scanner.skip_space()
            if not (yield from self._value(scanner, output, call, key, nesting)):
                return False
        return False

    def _value(self, scanner: Scanner, output: Output, call: _Call, key: str, nesting: int) -> Reading[bool]:
        first = yield from scanner.peek()
        if key == "function" and first == "{" and nesting < MAX_NESTING and not call.has_begun:
            return (yield from self._fields(scanner, output, call, False, nesting + 1))
        if key in self.name_keys and first == '"' and call.name is None:
            call.name = yield from read_string(scanner, MAX_NAME)
            return bool(call.name) and (call.is_sure or call.name in output.schemas)
        if key in self.argument_keys and not call.has_begun and call.arguments is None:
            return (yield from self._arguments(scanner, output, call, first))
        if not call.is_sure and key not in OTHER_KEYS and key not in self.id_keys:
            return False  # An answer that is JSON: it shall be seen while it comes.
        value = yield from read_json(scanner)
        if key in self.id_keys and value is not None and not call.has_begun:
            call.call_id = string_of(value)
        return value is not None

    def _arguments(self, scanner: Scanner, output: Output, call: _Call, first: str) -> Reading[bool]:
        if call.name is None or first not in ("{", "["):
            # Without a name they wait for it; as a string or null they are not the object yet.
            call.arguments = yield from read_json(scanner)
            return call.arguments is not None
        self._begin(scanner, output, call)
        return (yield from pass_json(scanner, output.arguments))

    def _begin(self, scanner: Scanner, output: Output, call: _Call) -> None:
        assert call.name is not None, "only named calls begin"
        scanner.forget()
        output.call_begins(call.name, call.call_id)
        call.has_begun = True


def _as_object(arguments: str | None) -> str:
    """Arguments that came as JSON inside a string, or not at all."""
    if arguments is None or arguments == "null":
        return "{}"
    if arguments.startswith('"'):
        return string_of(arguments) or json.dumps({})
    return arguments
