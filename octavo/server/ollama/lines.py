"""NDJSON: an object per line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from octavo.server.line_json import line_json
from octavo.server.ollama.errors import ollama_error
from octavo.server.stream import EventStream

NDJSON = "application/x-ndjson"


def line(reply: Any) -> bytes:
    """One object as bytes."""
    return line_json(reply) + b"\n"


def line_stream(lines: AsyncGenerator[bytes, None]) -> EventStream:
    """Sends lines. An error in their midst becomes the last one."""
    return EventStream(
        lines, media_type=NDJSON, error_frame=lambda error: line(ollama_error(error)[1]), ending=b""
    )
