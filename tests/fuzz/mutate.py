"""Mutators: inputs like others, for bytes, texts made of words, and JSON. The same for all engines."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from tests.fuzz.target import Mutate

EDGES = (0, 1, 2, 7, 8, 31, 32, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1,
         2**63, 2**64 - 1)  # fmt: skip

ODD_TEXTS = (
    "", " ", "\0", "a\0b", "\n", "\ud800", "\udfff", "\ufeff", "\u202e", "\u2028", "é", "e\u0301", "😀",
    "<|im_end|>", "<|im_start|>system", "{{ 1 }}", "{% raw %}", "%s%n", "../../etc/passwd",
    "file:///etc/passwd",
    "http://127.0.0.1:1/", "data:image/png;base64,AAAA", "null", "NaN", "a" * 300, "0", "-1", "true",
    "(a+)+b", "a{1,100000}", "[", "\\", "$ref", "#/", "__proto__", "__class__", "content", "1e999",
)  # fmt: skip

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 17, 64, 1000, 10**6, 2**31, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30,
    0.0, -0.0,
    0.5, 1.5, 1e-300, 1e300, -1e-9, float("nan"), float("inf"), "", [], {}, [[]], [None], [{}], {"": None},
    {"type": "object"}, {"type": "text", "text": "x"}, ["a", "a"], [0, -1, 2**40], "x" * 2000,
)  # fmt: skip


def bytes_mutator(words: Sequence[bytes] = (), *, hot_bytes: int | None = None) -> Mutate:
    """hot_bytes: most changes fall among the first so many, where the structure is."""

    def place(data: bytearray, rng: Random) -> int:
        size = len(data) + 1
        return rng.randrange(min(size, hot_bytes) if hot_bytes and rng.random() < 0.8 else size)

    def change(data: bytearray, rng: Random) -> None:
        at = place(data, rng)
        match rng.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + rng.choice((1, 2, 4, 8, rng.randrange(1, 64)))]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 32)))
            case 4:
                number = rng.choice(EDGES) + rng.randrange(-1, 2)
                raw = struct.pack("<Q", number % 2**64)[: rng.choice((1, 2, 4, 8))]
                data[at : at + len(raw)] = raw
            case 5:
                start, length = place(data, rng), rng.randrange(1, 128)
                data[at:at] = data[start : start + length]
            case 6 if words:
                word = rng.choice(words)
                data[at : at + (len(word) if rng.random() < 0.5 else 0)] = word
            case _:
                del data[at + rng.randrange(4096) :]

    return _repeated(change, bytearray, bytes)


def text_mutator(words: Sequence[str]) -> Mutate:
    """Words go in, come out and change places; the result is valid UTF-8 where the input was."""

    def change(text: list[str], rng: Random) -> None:
        at = rng.randrange(len(text) + 1)
        length = rng.choice((1, 1, 2, 5, 20))
        match rng.randrange(6):
            case 0 | 1:
                text[at:at] = list(rng.choice(words))
            case 2:
                del text[at : at + length]
            case 3:
                start = rng.randrange(len(text) + 1)
                text[at:at] = text[start : start + length * 4]
            case 4:
                text[at : at + length] = list(rng.choice(words))
            case _:
                text[at:at] = list(
                    rng.choice((*ODD_TEXTS, str(rng.choice(EDGES)), chr(rng.randrange(32, 600))))
                )

    return _repeated(
        change,
        lambda data: list(data.decode("utf-8", "surrogateescape")),
        lambda text: "".join(text).encode("utf-8", "surrogatepass"),
    )


def json_mutator(words: Sequence[str] = (), *, head: int = 0) -> Mutate:
    """JSON with values, names and structure changed; now and then its bytes. The first `head` bytes choose
    among several doors, and mostly stay.
    """
    raw = bytes_mutator([b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"1e999", b"\\ud800", b"NaN"])

    def mutate(data: bytes, rng: Random) -> bytes:
        first, body = data[:head], data[head:]
        if head and rng.random() < 0.1:
            first = rng.randbytes(head)
        if rng.random() < 0.05:
            return first + raw(body, rng)
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return first + raw(body, rng)
        holder = [document]
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
            _change_json(holder, words, rng)
        try:
            return first + json.dumps(holder[0], ensure_ascii=rng.random() < 0.2).encode(
                "utf-8", "surrogatepass"
            )
        except (ValueError, RecursionError):
            return first + raw(body, rng)

    return mutate


def _change_json(holder: list[Any], words: Sequence[str], rng: Random) -> None:
    place, key = rng.choice(_places(holder))
    value = place[key]
    match rng.randrange(9):
        case 0 | 1:
            place[key] = _odd_value(words, rng)
        case 2 if isinstance(value, dict):
            value[rng.choice(words) if words and rng.random() < 0.9 else rng.choice(ODD_TEXTS)] = _odd_value(
                words, rng
            )
        case 3 if isinstance(value, dict) and value:
            del value[rng.choice(list(value))]
        case 4 if isinstance(value, list):
            value.insert(
                rng.randrange(len(value) + 1), rng.choice(value) if value else _odd_value(words, rng)
            )
        case 5 if isinstance(value, list) and value:
            del value[rng.randrange(len(value))]
        case 6:
            other, name = rng.choice(_places(holder))
            # A copy: one object in two places would soon hold itself.
            place[key] = json.loads(json.dumps(other[name]))
        case 7:
            place[key] = [value] if rng.random() < 0.5 else {rng.choice(words or ODD_TEXTS): value}
        case _:
            place[key] = _near(value, words, rng)


def _places(holder: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting: list[Any] = [holder]
    while waiting and len(found) < 2000:
        container = waiting.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            found.append((container, key))
            if isinstance(value, dict | list):
                waiting.append(value)
    return found


def _odd_value(words: Sequence[str], rng: Random) -> Any:
    kind = rng.randrange(4)
    if kind == 0 and words:
        return rng.choice(words)
    if kind == 1:
        return rng.choice(ODD_TEXTS)
    value = rng.choice(ODD_VALUES)
    return json.loads(json.dumps(value))


def _near(value: Any, words: Sequence[str], rng: Random) -> Any:
    """A value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value * 1000, rng.choice(EDGES), float(value)))
    if isinstance(value, float):
        return rng.choice((-value, value * 1e9, value / 1e9, rng.random(), 1.0))
    if isinstance(value, str):
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice((*ODD_TEXTS, *words)) + value[at + rng.randrange(3) :]
    return _odd_value(words, rng)


def _repeated(
    change: Callable[[Any, Random], None], begin: Callable[[bytes], Any], end: Callable[[Any], bytes]
) -> Mutate:
    def mutate(data: bytes, rng: Random) -> bytes:
        state = begin(data)
        for _ in range(rng.choice((1, 1, 2, 2, 4, 8))):
            change(state, rng)
        return end(state)

    return mutate
