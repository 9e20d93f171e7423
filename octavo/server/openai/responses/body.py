"""POST /v1/responses: the body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from octavo.server.body import Body
from octavo.server.openai.responses.fields import RESPONSES_IGNORED, RESPONSES_UNSUPPORTED
from octavo.server.openai.schema.generation import GenerationBody, StreamOptions
from octavo.server.openai.schema.metadata import Metadata

INPUT_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}
TOOL_CHOICE_SCHEMA = {"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object"}, {"type": "null"}]}
INCLUDES = Literal[
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "code_interpreter_call.outputs",
]
"""Only the first adds something. The others ask for more of what our answers never hold, which costs nothing:
reasoning comes in the clear, so that there is nothing to encrypt."""

LOGPROBS = "message.output_text.logprobs"
MAX_LABEL = 1024
"""Characters of the names a caller may attach: user, safety_identifier, prompt_cache_key."""


Elsewhere = SkipJsonSchema[Any]
"""A name that another body has: refused by `options.py`."""

Label = Annotated[str, StringConstraints(max_length=MAX_LABEL)]


class TextFormat(Body):
    """What form the text of the answer takes. The last four are for json_schema."""

    model_config = ConfigDict(populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class TextSettings(Body):
    """How the text of the answer shall be."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningSettings(Body):
    """How the model shall think, and how that is shown."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    """The old name of summary."""
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class ResponsesStreamOptions(StreamOptions):
    """What a stream says beside its text."""

    include_obfuscation: bool | None = None


class ResponsesBody(GenerationBody):
    """Answer a conversation, part of which the server may remember."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = RESPONSES_UNSUPPORTED
    ignored: ClassVar[frozenset[str]] = RESPONSES_IGNORED

    input: Annotated[Any, WithJsonSchema(INPUT_SCHEMA)]
    """Text, or items."""
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] | None = None
    """Checked as chat's are, with tool_choice."""
    tool_choice: Annotated[Any, WithJsonSchema(TOOL_CHOICE_SCHEMA)] = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int | None, Field(ge=1)] = None
    """A limit for tools that run inside a server. There are none here, so it never matters."""
    text: TextSettings | None = None
    reasoning: ReasoningSettings | None = None
    include: list[INCLUDES] | None = None
    top_logprobs: int | None = None
    max_output_tokens: int | None = None
    truncation: Literal["auto", "disabled"] | None = None
    store: bool | None = None
    background: bool | None = None
    metadata: Metadata = None
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    """All requests are served alike; what comes back is always 'default'."""
    stream_options: ResponsesStreamOptions | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[dict[str, Any]] | None = None
    thinking_token_budget: Annotated[int | None, Field(ge=0)] = None

    max_tokens: Elsewhere = None
    max_completion_tokens: Elsewhere = None
    messages: Elsewhere = None
    logprobs: Elsewhere = None
    reasoning_effort: Elsewhere = None
    response_format: Elsewhere = None
    functions: Elsewhere = None
    function_call: Elsewhere = None
    use_beam_search: Elsewhere = None
    echo: Elsewhere = None
    prompt_logprobs: Elsewhere = None
    return_token_ids: Elsewhere = None
    return_tokens_as_token_ids: Elsewhere = None

    @property
    def wants_logprobs(self) -> bool:
        return LOGPROBS in (self.include or []) or bool(self.top_logprobs or self.logprob_token_ids)
