"""Values written as literals of some language -> JSON text, passed on as they come.

Python's and Gemma's ways differ in a few signs only, so those are data.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from octavo.server.parsing.arguments import as_number
from octavo.server.parsing.json_text import MAX_DEPTH, escaped
from octavo.server.parsing.markers import markers
from octavo.server.parsing.output import Output
from octavo.server.parsing.scanner import Reading, Scanner

MAX_WORD = 1024
"""Characters of a number, a bare word or a key."""

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}
_CODE_LENGTHS = {"x": 2, "u": 4, "U": 8}
_BARE = re.compile(r"[^,\]\)\}\n]*")
_KEY = re.compile(r"[^\s:=,\]\)\}\[\({'\"]*")
_CLOSING = {"[": "]", "(": ")", "{": "}"}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How literals are written."""

    quotes: tuple[str, ...]
    """What strings stand between; the longer ones win."""
    has_escapes: bool
    """A backslash in a string begins an escape."""
    words: tuple[tuple[str, str], ...]
    """Constants and their JSON."""


PYTHON = Dialect(
    quotes=('"""', "'''", '"', "'"),
    has_escapes=True,
    words=(
        ("True", "true"), ("False", "false"), ("None", "null"),
        ("true", "true"), ("false", "false"), ("null", "null"),
    ),
)  # fmt: skip


class Literals:
    """Reads values of one dialect and writes JSON to an output."""

    def __init__(self, dialect: Dialect, scanner: Scanner, output: Output) -> None:
        self._dialect = dialect
        self._scanner = scanner
        self._output = output
        self._words = dict(dialect.words)

    def value(self, depth: int = 0) -> Reading[bool]:
        """Pass a value on; False if it breaks off. The text has no white space in front."""
        quote = yield from self._scanner.accept(*self._dialect.quotes)
        if quote is not None:
            return (yield from self._string(quote))
        first = yield from self._scanner.peek()
        if first in _CLOSING:
            if depth == MAX_DEPTH:
                return False
            self._scanner.take(self._scanner.position + 1)
            if first == "{":
                return (yield from self.pairs("}", depth + 1))
            return (yield from self._items(_CLOSING[first], depth + 1))
        return (yield from self._bare())

    def pairs(self, closing: str, depth: int, separator: str = ":") -> Reading[bool]:
        """Pass `key: value, ...` on as an object, up to `closing`."""
        scanner, output = self._scanner, self._output
        output.arguments("{")
        is_first = True
        while True:
            yield from scanner.skip_space()
            if (yield from scanner.accept(closing)) is not None:
                output.arguments("}")
                return True
            if not is_first:
                if (yield from scanner.accept(",")) is None:
                    return False
                yield from scanner.skip_space()
                if (yield from scanner.accept(closing)) is not None:
                    output.arguments("}")
                    return True
                output.arguments(", ")
            is_first = False
            if not (yield from self._key()):
                return False
            yield from scanner.skip_space()
            if (yield from scanner.accept(separator)) is None:
                return False
            output.arguments(": ")
            yield from scanner.skip_space()
            if not (yield from self.value(depth)):
                return False

    def _items(self, closing: str, depth: int) -> Reading[bool]:
        scanner, output = self._scanner, self._output
        output.arguments("[")
        is_first = True
        while True:
            yield from scanner.skip_space()
            if (yield from scanner.accept(closing)) is not None:
                output.arguments("]")
                return True
            if not is_first:
                if (yield from scanner.accept(",")) is None:
                    return False
                yield from scanner.skip_space()
                if (yield from scanner.accept(closing)) is not None:
                    output.arguments("]")
                    return True
                output.arguments(", ")
            is_first = False
            if not (yield from self.value(depth)):
                return False

    def _key(self) -> Reading[bool]:
        quote = yield from self._scanner.accept(*self._dialect.quotes)
        if quote is not None:
            return (yield from self._string(quote))
        name = yield from self._word(_KEY)
        if not name or (self._scanner.is_over and self._scanner.is_empty):
            return False
        self._output.arguments(f'"{escaped(name)}"')
        return True

    def _bare(self) -> Reading[bool]:
        """A number, a constant or a word without quotes, which is a string."""
        text = ((yield from self._word(_BARE)) or "").strip()
        if not text or (self._scanner.is_over and self._scanner.is_empty):
            return False
        known = self._words.get(text) or as_number(text)
        self._output.arguments(known or json.dumps(text, ensure_ascii=False))
        return True

    def _word(self, pattern: re.Pattern[str]) -> Reading[str | None]:
        """What `pattern` matches, None if it is too long."""
        pieces: list[str] = []
        with self._scanner.within(MAX_WORD):
            while True:
                pieces.append(self._scanner.run(pattern))
                if not self._scanner.is_empty:
                    return "".join(pieces)
                if self._scanner.is_over:
                    break
                yield
        return None if sum(map(len, pieces)) == MAX_WORD else "".join(pieces)

    def _string(self, quote: str) -> Reading[bool]:
        """The rest of a string behind its opening quote."""
        scanner, output = self._scanner, self._output
        wanted = markers(quote, "\\") if self._dialect.has_escapes else markers(quote)
        output.arguments('"')
        while True:
            text, marker = scanner.piece(wanted)
            output.arguments(escaped(text))
            if marker == quote:
                output.arguments('"')
                return True
            if marker is not None:
                output.arguments(escaped((yield from self._escape())))
            elif scanner.is_over:
                return False
            else:
                yield

    def _escape(self) -> Reading[str]:
        """What stands behind a backslash. Unknown escapes are the characters they are written with."""
        scanner = self._scanner
        kind = yield from scanner.peek()
        scanner.take(min(scanner.position + 1, scanner.end))
        length = _CODE_LENGTHS.get(kind)
        if length is None:
            return _ESCAPES.get(kind, kind if kind in ("\\", "'", '"') else "\\" + kind)
        code = _code((yield from scanner.peek(length)), length)
        if code is None:
            return "\\" + kind
        scanner.take(scanner.position + length)
        if 0xD800 <= code < 0xDC00:
            # JSON's way to write characters behind U+FFFF is met here too: as two halves.
            follower = yield from scanner.peek(6)
            low = _code(follower[2:], 4) if follower.startswith("\\u") else None
            if low is not None and 0xDC00 <= low <= 0xDFFF:
                scanner.take(scanner.position + 6)
                return chr(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))
        return "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)


def _code(digits: str, length: int) -> int | None:
    if len(digits) < length or any(char not in "0123456789abcdefABCDEF" for char in digits):
        return None
    code = int(digits, 16)
    return code if code <= 0x10FFFF else None
