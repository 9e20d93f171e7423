"""JSON that stays one line however a client takes a stream apart.

Python's own splitlines ends a line at U+0085, U+2028 and U+2029 too, and httpx reads lines with it: so do the
clients of Ollama and Hugging Face. In JSON these can be written as escapes; what else ends lines has to be.
"""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.Encoder().encode

_ESCAPES = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"), (b"\xc2\x85", rb"\u0085"))


def line_json(value: Any) -> bytes:
    """Hot path: once per streamed token. Nearly all are told by a look at the bytes."""
    data = _encode(value)
    if data.isascii() or not (b"\xe2\x80" in data or b"\xc2\x85" in data):
        return data
    for character, escape in _ESCAPES:
        data = data.replace(character, escape)
    return data
