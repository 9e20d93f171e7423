"""A position in a GGUF header that cannot run past the end of the file, and the values stored there.

Every count is compared with the bytes that are left before anything of that size is made.
"""

from __future__ import annotations

import mmap
import struct
from typing import Any

from octavo.base.errors import ModelFileError

MAX_STRING_BYTES = 16 * 2**20
MAX_NAME_BYTES = 4096
MAX_ARRAY_ITEMS = 8 * 2**20
"""Array items of one file, all arrays together."""
MAX_ARRAY_DEPTH = 3

STRING, ARRAY, BOOL = 8, 9, 7
NUMBER_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
"""Value type id -> struct format. 7 is a bool in one byte."""

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_SIZES = {kind: struct.calcsize("<" + letter) for kind, letter in NUMBER_FORMATS.items()}
_LEAST_BYTES = {**_SIZES, STRING: 8, ARRAY: 12}


class Cursor:
    """Reads little-endian values one after the other; `what` in each call names the value in errors."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0
        self.size = len(data)
        self._items_left = MAX_ARRAY_ITEMS

    def need(self, count: int, what: str) -> None:
        """Raise ModelFileError unless `count` more bytes exist."""
        left = self.size - self.position
        if count > left:
            raise ModelFileError(
                f"The GGUF file ends inside {what}: {count} bytes needed, {left} left. "
                "It is truncated or broken; fetch it again."
            )

    def u32(self, what: str) -> int:
        self.need(4, what)
        value: int = _U32.unpack_from(self.data, self.position)[0]
        self.position += 4
        return value

    def u64(self, what: str) -> int:
        self.need(8, what)
        value: int = _U64.unpack_from(self.data, self.position)[0]
        self.position += 8
        return value

    def name(self, what: str) -> str:
        """Read a short string without control characters."""
        text = self.string(what, MAX_NAME_BYTES)
        if not text or not text.isprintable():
            raise ModelFileError(f"The GGUF file has an empty or unprintable name at {what}.")
        return text

    def string(self, what: str, max_bytes: int = MAX_STRING_BYTES) -> str:
        length = self.u64(what)
        if length > max_bytes:
            raise ModelFileError(f"GGUF {what}: a string of {length} bytes; at most {max_bytes} are read.")
        self.need(length, what)
        raw = self.data[self.position : self.position + length]
        self.position += length
        return _decode(raw, what)

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        """Read one metadata value of type id `kind`."""
        if kind in NUMBER_FORMATS:
            return self._numbers(kind, 1, what)[0]
        if kind == STRING:
            return self.string(what)
        if kind == ARRAY:
            return self._array(what, depth)
        raise ModelFileError(f"GGUF {what}: unknown value type {kind}.")

    def _array(self, what: str, depth: int) -> list[Any]:
        kind, count = self.u32(what), self.u64(what)
        if kind not in _LEAST_BYTES:
            raise ModelFileError(f"GGUF {what}: unknown array item type {kind}.")
        if depth >= MAX_ARRAY_DEPTH:
            raise ModelFileError(f"GGUF {what}: arrays nested over {MAX_ARRAY_DEPTH} deep.")
        self.need(count * _LEAST_BYTES[kind], what)
        if count > self._items_left:
            raise ModelFileError(f"GGUF {what}: over {MAX_ARRAY_ITEMS} array items in one file.")
        self._items_left -= count
        if kind in NUMBER_FORMATS:
            return self._numbers(kind, count, what)
        if kind == STRING:
            return self._strings(count, what)
        return [self._array(what, depth + 1) for _ in range(count)]

    def _numbers(self, kind: int, count: int, what: str) -> list[Any]:
        size = _SIZES[kind] * count
        self.need(size, what)
        values = list(struct.unpack_from(f"<{count}{NUMBER_FORMATS[kind]}", self.data, self.position))
        self.position += size
        if kind != BOOL:
            return values
        if any(value > 1 for value in values):
            raise ModelFileError(f"GGUF {what}: a bool that is neither 0 nor 1.")
        return [value == 1 for value in values]

    def _strings(self, count: int, what: str) -> list[str]:
        """Like `string` many times; written out because vocabularies have 10^5 entries."""
        data, size, position = self.data, self.size, self.position
        unpack = _U64.unpack_from
        strings = []
        for _ in range(count):
            start = position + 8
            if start > size:
                self.position = position
                self.need(8, what)
            position = start + unpack(data, position)[0]
            if position > size:
                self.position = start
                self.need(position - start, what)
            if position - start > MAX_STRING_BYTES:
                raise ModelFileError(f"GGUF {what}: a string over {MAX_STRING_BYTES} bytes.")
            strings.append(_decode(data[start:position], what))
        self.position = position
        return strings


def _decode(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ModelFileError(f"GGUF {what}: a string that is not UTF-8.") from error
