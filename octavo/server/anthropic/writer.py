"""A conversation -> one message, or the events of a stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

import msgspec

from octavo.messages.request import PrefixPin
from octavo.server.anthropic.body import MessagesBody
from octavo.server.anthropic.content import BlockEvent, ContentBlocks, whole_blocks
from octavo.server.anthropic.errors import describe_anthropic
from octavo.server.anthropic.messages import TTL_S
from octavo.server.anthropic.prompt import MessagesPrompt
from octavo.server.anthropic.reply import (
    CacheCreation,
    MessageDelta,
    MessageReply,
    MessageStart,
    MessageStop,
    MessageUsage,
    Ping,
    StopDelta,
    StreamEvent,
)
from octavo.server.conversation import AnswerPart, Conversation
from octavo.server.line_json import line_json
from octavo.server.openai.schema.generation import Usage
from octavo.server.parsing.events import Event


def event_frame(event: StreamEvent) -> bytes:
    """One event as bytes. Clients go by its name."""
    return b"event: %b\ndata: %b\n\n" % (str(event.__struct_config__.tag).encode(), line_json(event))


def failure_frame(error: Exception) -> bytes:
    """The last event of a stream that failed."""
    return b"event: error\ndata: %b\n\n" % line_json(describe_anthropic(error)[1])


class MessageWriter:
    """Writes one answer."""

    def __init__(self, body: MessagesBody, prompt: MessagesPrompt, reply_id: str, model: str) -> None:
        self._body = body
        self._prompt = prompt
        self._id = reply_id
        self._model = model
        thinking = body.thinking
        self._blocks = ContentBlocks(shows_thinking=thinking is None or thinking.display != "omitted")

    def reply(self, conversation: Conversation, answer: AnswerPart) -> MessageReply:
        """The whole message."""
        reply = self._message(conversation)
        reply.content = whole_blocks([*self._read(answer.events), *self._blocks.finish()])
        stop = self._stop(answer)
        reply.stop_reason, reply.stop_sequence = stop.stop_reason, stop.stop_sequence
        return reply

    async def frames(self, conversation: Conversation) -> AsyncGenerator[bytes, None]:
        """All events. Those of one step go out together."""
        has_begun = False
        async with aclosing(conversation.parts()) as parts:
            async for part in parts:
                events: list[StreamEvent] = []
                if not has_begun:
                    has_begun = True
                    events += [MessageStart(self._message(conversation)), Ping()]
                events += self._read(part.events)
                if part.finish_reason is not None:
                    events += self._blocks.finish()
                    events += [MessageDelta(self._stop(part), self._usage(conversation)), MessageStop()]
                if events:
                    yield b"".join(map(event_frame, events))

    def _read(self, events: Iterable[Event]) -> list[BlockEvent]:
        if self._body.is_prefill_only:
            return []
        return [found for event in events for found in self._blocks.feed(event)]

    def _message(self, conversation: Conversation) -> MessageReply:
        return MessageReply(id=self._id, model=self._model, content=[], usage=self._usage(conversation))

    def _usage(self, conversation: Conversation) -> MessageUsage:
        usage = conversation.usage.usage(is_answer_dropped=self._body.is_prefill_only)
        return message_usage(usage, self._prompt.rendered.pins)

    def _stop(self, part: AnswerPart) -> StopDelta:
        if part.finish_reason == "tool_calls":
            return StopDelta("tool_use", None)
        if part.finish_reason == "length" or self._body.is_prefill_only:
            is_cut = self._prompt.is_cut_by_context
            return StopDelta("model_context_window_exceeded" if is_cut else "max_tokens", None)
        sequence: Any = part.stop_reason
        if sequence in (self._body.stop_sequences or ()):
            return StopDelta("stop_sequence", sequence)
        return StopDelta("end_turn", None)


def message_usage(usage: Usage, pins: Iterable[PrefixPin]) -> MessageUsage:
    """Tokens by how they came about. What was pinned and not there yet counts as put into the cache."""
    details = usage.prompt_tokens_details
    num_read = details.cached_tokens if isinstance(details, msgspec.Struct) else 0
    num_kept = {pin.ttl_s: max(0, pin.num_tokens - num_read) for pin in pins}
    num_created = max(num_kept.values(), default=0)
    num_for_long = num_kept.get(TTL_S["1h"], 0)
    return MessageUsage(
        input_tokens=usage.prompt_tokens - num_read - num_created,
        cache_creation_input_tokens=num_created,
        cache_read_input_tokens=num_read,
        output_tokens=usage.completion_tokens,
        cache_creation=CacheCreation(num_created - num_for_long, num_for_long),
    )
