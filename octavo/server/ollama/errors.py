"""Errors as Ollama's clients read them: one string."""

from __future__ import annotations

import msgspec

from octavo.server.errors import ErrorShape, describe
from octavo.server.wording import Wording

_in_ollama_words = Wording(
    {
        "max_tokens": "num_predict",
        "repetition_penalty": "repeat_penalty",
        "chat_template": "template",
        "response_format": "format",
        "response_format.json_schema.schema": "format",
        "reasoning_effort": "think",
    }
)


class OllamaError(msgspec.Struct):
    """Body of every 4xx and 5xx, and the last line of a stream that failed."""

    error: str


def ollama_error(error: Exception) -> tuple[int, OllamaError]:
    """HTTP status and body of an exception."""
    status, reply = describe(error)
    return status, OllamaError(_in_ollama_words(reply.error.message))


OLLAMA_SHAPES: dict[str, ErrorShape] = {"/api/": ollama_error}
"""Which paths speak so."""
