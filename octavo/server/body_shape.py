"""How much a body makes a parser build: counted before it builds anything, as nothing else runs meanwhile.

A parser takes some 0.2 us for each name, list and object, and a tenth of that for a number, while the event
loop waits. Text is nearly free, whatever is in it, so only what stands outside strings counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from octavo.base.errors import ErrorCode, RequestError

MAX_PARTS = 50_000
"""Names, lists and objects."""
MAX_VALUES = 1_000_000
"""Commas: token ids, for the most part."""
SLICE = 2**18
"""Bytes that are looked through at a time: a millisecond or two, when they are quotes."""

PARTS, VALUES = (b":", b"[", b"{"), (b",",)


def check_shape(body: bytes) -> Iterator[None]:
    """Raise RequestError if `body` has too many parts or values. Stops now and then for others to run.

    What is not JSON is counted somehow: a parser finds it out.
    """
    if _count(body, (*PARTS, *VALUES)) <= MAX_PARTS:
        return
    num_parts = num_values = 0
    for bare in _outside_strings(body):
        num_parts += _count(bare, PARTS)
        num_values += _count(bare, VALUES)
        if num_parts > MAX_PARTS:
            raise _too_much(f"{MAX_PARTS} names, lists and objects")
        if num_values > MAX_VALUES:
            raise _too_much(f"{MAX_VALUES} values")
        yield


def _outside_strings(body: bytes) -> Iterator[bytes]:
    """`body` without its strings, slice by slice."""
    is_inside = False
    begun = b""
    for start in range(0, len(body), SLICE):
        piece = begun + body[start : start + SLICE]
        # What an unpaired backslash at the end escapes is yet to come.
        begun = b"\\" * ((len(piece) - len(piece.rstrip(b"\\"))) % 2)
        whole = piece[: len(piece) - len(begun)]
        parts = whole.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0


def _count(data: bytes, marks: tuple[bytes, ...]) -> int:
    return sum(map(data.count, marks))


def _too_much(what: str) -> RequestError:
    return RequestError(f"The body has more than {what}.", code=ErrorCode.BODY_TOO_LARGE)
