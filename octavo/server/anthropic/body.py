"""Bodies of /v1/messages and /v1/messages/count_tokens. What is in messages and tools is checked elsewhere:
`messages.py`, `tools.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from octavo.messages.params import MAX_STOP_LENGTH, MAX_STOP_STRINGS
from octavo.server.anthropic.fields import IGNORED, UNSUPPORTED
from octavo.server.body import Body

BLOCK = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
TEXT_OR_BLOCKS = {"anyOf": [{"type": "string"}, {"type": "array", "items": BLOCK}]}
TOOL = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "description": {"type": "string"},
        "input_schema": {"type": "object"},
    },
    "required": ["name", "input_schema"],
}
CHOICE = {
    "type": "object",
    "properties": {
        "type": {"enum": ["auto", "any", "tool", "none"]},
        "name": {"type": "string"},
        "disable_parallel_tool_use": {"type": "boolean"},
    },
    "required": ["type"],
}
EDITS = {"type": "object", "properties": {"edits": {"type": "array", "items": BLOCK}}}

StopSequence = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]


class CacheControl(Body):
    """Keep the prompt up to here for a while."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class InputMessage(Body):
    """One turn. Its content is text or blocks."""

    role: Literal["user", "assistant", "system"]
    content: Annotated[Any, WithJsonSchema(TEXT_OR_BLOCKS)]


class Thinking(Body):
    """Whether the model thinks before it answers, and for how many tokens at most."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int | None, Field(ge=1)] = None
    display: Literal["summarized", "omitted"] | None = None


class JsonFormat(Body):
    """The answer is JSON that fits a schema."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Body):
    """The form of the answer, and how much effort goes into it."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class PromptBody(Body):
    """What a prompt is made of."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = UNSUPPORTED
    ignored: ClassVar[frozenset[str]] = IGNORED

    model: str
    messages: list[InputMessage]
    system: Annotated[Any, WithJsonSchema(TEXT_OR_BLOCKS)] = None
    tools: Annotated[Any, WithJsonSchema({"type": "array", "items": TOOL})] = None
    tool_choice: Annotated[Any, WithJsonSchema(CHOICE)] = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = None
    """The older name of output_config.format."""
    cache_control: CacheControl | None = None
    """A breakpoint at the end of the prompt."""
    context_management: Annotated[Any, WithJsonSchema(EDITS)] = None

    @property
    def json_format(self) -> JsonFormat | None:
        config = self.output_config
        return config.format if config is not None and config.format is not None else self.output_format


class CountTokensBody(PromptBody):
    """Count the tokens of a prompt."""


class MessagesBody(PromptBody):
    """Answer a conversation."""

    max_tokens: Annotated[int, Field(ge=0)]
    stop_sequences: Annotated[list[StopSequence] | None, Field(max_length=MAX_STOP_STRINGS)] = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int | None, Field(ge=0)] = None

    @property
    def is_prefill_only(self) -> bool:
        """Nothing is to be said: the prompt shall be in the cache."""
        return self.max_tokens == 0
