"""Errors as clients of the Anthropic API know them."""

from __future__ import annotations

import msgspec

from octavo.base.errors import ErrorCode, OctavoError
from octavo.observe.request_context import current_request_id
from octavo.server.errors import describe
from octavo.server.wording import Wording

OVERLOADED_STATUS = 529
"""Anthropic's own: its clients tell it from other failures of a server."""

TYPES = {"server_error": "api_error"}
"""Where Anthropic's word differs from the catalogue's."""


_in_anthropic_words = Wording(
    {
        "response_format.json_schema.schema": "output_config.format.schema",
        "response_format": "output_config.format",
        "function.parameters": "input_schema",
        "thinking_token_budget": "thinking.budget_tokens",
        "reasoning_effort": "output_config.effort",
        # Kinds of tool_choice.
        "required' or to a function": "any' or to a tool",
        "none' or 'required": "none' or 'any",
    }
)


class AnthropicErrorDetail(msgspec.Struct):
    """What went wrong."""

    type: str
    message: str


class AnthropicErrorReply(msgspec.Struct, tag="error", tag_field="type"):
    """Body of every 4xx and 5xx, and the last event of a stream that failed."""

    error: AnthropicErrorDetail
    request_id: str


def describe_anthropic(error: Exception) -> tuple[int, AnthropicErrorReply]:
    """HTTP status and body."""
    status, reply = describe(error)
    kind = TYPES.get(reply.error.type, reply.error.type)
    if status == 413:
        kind = "request_too_large"
    if isinstance(error, OctavoError) and error.code is ErrorCode.OVERLOADED:
        status = OVERLOADED_STATUS
    message = _in_anthropic_words(reply.error.message)
    return status, AnthropicErrorReply(AnthropicErrorDetail(kind, message), current_request_id())
