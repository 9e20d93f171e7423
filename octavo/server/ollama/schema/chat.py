"""/api/chat: the body and the reply."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field

from octavo.server.body import Body
from octavo.server.ollama.schema.common import AnswerBody, Reply

MAX_MESSAGES = 4096


class OllamaFunctionCall(Body):
    """What a model called in an earlier turn."""

    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class OllamaToolCall(Body):
    """A call of an earlier turn. Ollama's have no id, or one."""

    id: str | None = None
    function: OllamaFunctionCall


class OllamaMessage(Body):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[Any] | None = None
    tool_calls: list[OllamaToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaChatBody(AnswerBody):
    """Answer a conversation. No messages: load the model, which here is done."""

    messages: Annotated[list[OllamaMessage], Field(max_length=MAX_MESSAGES)] = Field(default_factory=list)
    tools: list[dict[str, Any]] | None = None


class OllamaCalledFunction(msgspec.Struct):
    """Which function the model calls."""

    index: int
    name: str
    arguments: dict[str, Any]


class OllamaMadeCall(msgspec.Struct):
    """A call that the model makes."""

    id: str
    function: OllamaCalledFunction


class OllamaAnswerMessage(msgspec.Struct):
    """What the model said, or what is new of it."""

    role: str
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaMadeCall] | UnsetType = UNSET


class OllamaChatReply(Reply, kw_only=True):
    """A reply, or one line of a stream."""

    message: OllamaAnswerMessage
