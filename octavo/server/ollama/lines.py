"""NDJSON: an object per line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from octavo.server.ollama.errors import ollama_error
from octavo.server.stream import EventStream

NDJSON = "application/x-ndjson"

_encode = msgspec.json.Encoder().encode


def line(reply: Any) -> bytes:
    """One object as bytes."""
    return _encode(reply) + b"\n"


def line_stream(lines: AsyncGenerator[bytes, None]) -> EventStream:
    """Sends lines. An error in their midst becomes the last one."""
    return EventStream(
        lines, media_type=NDJSON, error_frame=lambda error: line(ollama_error(error)[1]), ending=b""
    )
