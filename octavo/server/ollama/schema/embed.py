"""/api/embed and /api/embeddings, the older one."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from octavo.server.ollama.schema.models import OllamaNameBody


class OllamaEmbedBody(OllamaNameBody):
    """Texts to embed; `prompt` is the older word."""

    ignored: ClassVar[frozenset[str]] = OllamaNameBody.ignored

    input: str | list[str] | None = None
    prompt: str | None = None
    truncate: bool | None = None
    """Cut what is too long, which is also what happens without a wish."""
    dimensions: int | None = None


class OllamaEmbedReply(msgspec.Struct, kw_only=True):
    """In the order of the texts."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    """Nanoseconds."""
    load_duration: int = 0
    prompt_eval_count: int


class OllamaEmbeddingsReply(msgspec.Struct):
    """The older route's: of one text."""

    embedding: list[float]
