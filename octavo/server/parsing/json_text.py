"""JSON that is still arriving: passed on as it comes, or read as a short string.

Only its shape is checked (brackets, strings), which is enough to know where it ends; text that cannot be
JSON ends it early.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from octavo.server.parsing.scanner import MAX_RECORD, Reading, Scanner

MAX_DEPTH = 128

_PLAIN = re.compile(r"[^\"{}\[\]<>'`|;｜]*")
"""Outside strings: what has no structure. The other characters left out are never JSON."""
_IN_STRING = re.compile(r'[^"\\]*')
_SCALAR = re.compile(r"[\w.+\-]*")
_CLOSING = {"{": "}", "[": "]"}
_CONTROLS = re.compile(r"[\x00-\x1f]")


def escaped(text: str) -> str:
    """Text as the inside of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def is_json(text: str) -> bool:
    """Whether it is one JSON value. Never raises, whatever it is."""
    try:
        json.loads(text, parse_constant=_refuse, parse_int=float)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def pass_json(scanner: Scanner, emit: Callable[[str], None]) -> Reading[bool]:
    """Pass one JSON value on. True when its end was reached, False when it broke off."""
    first = yield from scanner.peek()
    if first == '"':
        scanner.take(scanner.position + 1)
        emit(first)
        return (yield from _pass_string(scanner, emit))
    if first in _CLOSING:
        return (yield from _pass_nested(scanner, emit))
    is_empty = True
    while True:
        piece = scanner.run(_SCALAR)
        if piece:
            is_empty = False
            emit(piece)
        if not scanner.is_empty or scanner.is_over:
            return not is_empty
        yield


def _pass_nested(scanner: Scanner, emit: Callable[[str], None]) -> Reading[bool]:
    closing: list[str] = []
    while True:
        emit(scanner.run(_PLAIN))
        if scanner.is_empty:
            if scanner.is_over:
                return False
            yield
            continue
        char = scanner.text[scanner.position]
        if char in _CLOSING:
            if len(closing) == MAX_DEPTH:
                return False
            closing.append(_CLOSING[char])
        elif char in "}]":
            if closing.pop() != char:
                return False
        elif char != '"':
            return False
        scanner.take(scanner.position + 1)
        emit(char)
        if char == '"' and not (yield from _pass_string(scanner, emit)):
            return False
        if not closing:
            return True


def _pass_string(scanner: Scanner, emit: Callable[[str], None]) -> Reading[bool]:
    """The rest of a string, up to its closing quote. Raw line ends, which JSON forbids, are escaped."""
    while True:
        emit(_without_controls(scanner.run(_IN_STRING)))
        if scanner.is_empty:
            if scanner.is_over:
                return False
            yield
            continue
        if scanner.text[scanner.position] == '"':
            emit(scanner.take(scanner.position + 1))
            return True
        escape = yield from scanner.peek(2)
        if len(escape) < 2:
            emit(scanner.take(scanner.position + 1))
            return False
        emit(_without_controls(scanner.take(scanner.position + 2)))


def _without_controls(text: str) -> str:
    return _CONTROLS.sub(lambda match: escaped(match[0]), text)


def read_json(scanner: Scanner, limit: int = MAX_RECORD) -> Reading[str | None]:
    """The text of one JSON value, None if it breaks off or does not end within `limit`."""
    pieces: list[str] = []
    with scanner.within(limit):
        is_complete = yield from pass_json(scanner, pieces.append)
    return "".join(pieces) if is_complete else None


def read_string(scanner: Scanner, limit: int) -> Reading[str | None]:
    """What a JSON string says; None if none comes here."""
    if (yield from scanner.peek()) != '"':
        return None
    text = yield from read_json(scanner, limit)
    return None if text is None else string_of(text)


def string_of(text: str) -> str | None:
    """What the JSON string `text` says, None if it is none."""
    try:
        said = json.loads(text, strict=False)
        said.encode()
    except (ValueError, AttributeError):  # half a surrogate pair, or not a string
        return None
    return str(said)
