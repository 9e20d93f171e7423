"""/api/generate: the body and the reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from msgspec import UNSET, UnsetType

from octavo.server.ollama.schema.chat import OllamaMadeCall
from octavo.server.ollama.schema.common import AnswerBody, Reply


class OllamaGenerateBody(AnswerBody):
    """Answer a prompt. No prompt: load the model, which here is done."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **AnswerBody.unsupported,
        "height": (0,),
        "steps": (0,),
        "width": (0,),
    }

    prompt: str | None = None
    system: str | None = None
    template: str | None = None
    suffix: str | None = None
    images: list[Any] | None = None
    raw: bool | None = None
    context: list[int] | None = None


class OllamaGenerateReply(Reply, kw_only=True):
    """A reply, or one line of a stream."""

    response: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaMadeCall] | UnsetType = UNSET
    context: list[int] | UnsetType = UNSET
    """Tokens of the prompt and the answer; sent back, they are put before the next prompt."""
