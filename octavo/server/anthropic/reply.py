"""Replies and stream events of the Anthropic routes."""

from __future__ import annotations

from typing import Any

import msgspec


class TextBlock(msgspec.Struct, tag="text", tag_field="type"):
    """A part of the answer."""

    text: str
    citations: None = None


class ThinkingBlock(msgspec.Struct, tag="thinking", tag_field="type"):
    """What the model thought before."""

    thinking: str
    signature: str


class ToolUseBlock(msgspec.Struct, tag="tool_use", tag_field="type"):
    """A tool that the caller is asked to call."""

    id: str
    name: str
    input: dict[str, Any]


Block = TextBlock | ThinkingBlock | ToolUseBlock


class CacheCreation(msgspec.Struct):
    """Tokens newly kept, by how long."""

    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class MessageUsage(msgspec.Struct):
    """Tokens: the prompt's are the sum of the first three."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    cache_creation: CacheCreation
    service_tier: str = "standard"


class MessageReply(msgspec.Struct, kw_only=True):
    """The answer; at the start of a stream, without content."""

    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: list[Block]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    stop_details: None = None
    usage: MessageUsage


class TokenCount(msgspec.Struct):
    """Tokens of a prompt."""

    input_tokens: int


class MessageStart(msgspec.Struct, tag="message_start", tag_field="type"):
    """First event of a stream."""

    message: MessageReply


class Ping(msgspec.Struct, tag="ping", tag_field="type"):
    """The connection lives."""


class BlockStart(msgspec.Struct, tag="content_block_start", tag_field="type"):
    """A block begins, empty."""

    index: int
    content_block: Block


class TextBlockDelta(msgspec.Struct, tag="text_delta", tag_field="type"):
    """More text."""

    text: str


class ThinkingBlockDelta(msgspec.Struct, tag="thinking_delta", tag_field="type"):
    """More thought."""

    thinking: str


class SignatureDelta(msgspec.Struct, tag="signature_delta", tag_field="type"):
    """The thinking block is complete."""

    signature: str


class InputJsonDelta(msgspec.Struct, tag="input_json_delta", tag_field="type"):
    """More of a tool's input, as JSON text."""

    partial_json: str


class BlockDelta(msgspec.Struct, tag="content_block_delta", tag_field="type"):
    """More of a block."""

    index: int
    delta: TextBlockDelta | ThinkingBlockDelta | SignatureDelta | InputJsonDelta


class BlockStop(msgspec.Struct, tag="content_block_stop", tag_field="type"):
    """A block is complete."""

    index: int


class StopDelta(msgspec.Struct):
    """Why the answer ends."""

    stop_reason: str
    stop_sequence: str | None
    stop_details: None = None


class MessageDelta(msgspec.Struct, tag="message_delta", tag_field="type"):
    """The answer is complete."""

    delta: StopDelta
    usage: MessageUsage


class MessageStop(msgspec.Struct, tag="message_stop", tag_field="type"):
    """Last event of a stream."""


StreamEvent = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop
