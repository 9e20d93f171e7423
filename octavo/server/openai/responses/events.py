"""The events of a streamed response, counted from 0 so that a stream can be resumed."""

from __future__ import annotations

import msgspec

from octavo.server.errors import describe
from octavo.server.line_json import line_json
from octavo.server.openai.responses.reply import (
    OutputItem,
    OutputText,
    ReasoningText,
    ResponseReply,
    SummaryText,
)
from octavo.server.openai.schema.chat import TokenLogprob


class ResponseEvent(msgspec.Struct, kw_only=True, tag_field="type"):
    """What all events have."""

    sequence_number: int


class _Whole(ResponseEvent, kw_only=True):
    response: ResponseReply


class ResponseCreated(_Whole, tag="response.created"):
    """The first event."""


class ResponseQueued(_Whole, tag="response.queued"):
    """It runs in the background and has not begun."""


class ResponseInProgress(_Whole, tag="response.in_progress"):
    """It has begun."""


class ResponseCompleted(_Whole, tag="response.completed"):
    """The last event if all went well."""


class ResponseIncomplete(_Whole, tag="response.incomplete"):
    """The last event if the answer is cut."""


class ResponseFailed(_Whole, tag="response.failed"):
    """The last event if there is no answer."""


class StreamError(ResponseEvent, kw_only=True, tag="error"):
    """The stream itself broke off."""

    code: str
    message: str
    param: str | None


class _OfItem(ResponseEvent, kw_only=True):
    output_index: int
    item: OutputItem


class ItemAdded(_OfItem, tag="response.output_item.added"):
    """An item begins, empty."""


class ItemDone(_OfItem, tag="response.output_item.done"):
    """An item is complete."""


class _InItem(ResponseEvent, kw_only=True):
    item_id: str
    output_index: int


class _InContent(_InItem, kw_only=True):
    content_index: int = 0


class PartAdded(_InContent, kw_only=True, tag="response.content_part.added"):
    """A part of an item begins, empty."""

    part: OutputText | ReasoningText


class PartDone(_InContent, kw_only=True, tag="response.content_part.done"):
    """A part is complete."""

    part: OutputText | ReasoningText


class TextDelta(_InContent, kw_only=True, tag="response.output_text.delta"):
    """More of the answer."""

    delta: str
    logprobs: list[TokenLogprob]


class TextDone(_InContent, kw_only=True, tag="response.output_text.done"):
    """All of it."""

    text: str
    logprobs: list[TokenLogprob]


class ReasoningTextDelta(_InContent, kw_only=True, tag="response.reasoning_text.delta"):
    """More of what the model thinks."""

    delta: str


class ReasoningTextDone(_InContent, kw_only=True, tag="response.reasoning_text.done"):
    """All of it."""

    text: str


class _InSummary(_InItem, kw_only=True):
    summary_index: int = 0


class SummaryPartAdded(_InSummary, kw_only=True, tag="response.reasoning_summary_part.added"):
    """A part of a summary begins, empty."""

    part: SummaryText


class SummaryPartDone(_InSummary, kw_only=True, tag="response.reasoning_summary_part.done"):
    """A part of a summary is complete."""

    part: SummaryText


class SummaryTextDelta(_InSummary, kw_only=True, tag="response.reasoning_summary_text.delta"):
    """More of the summary."""

    delta: str


class SummaryTextDone(_InSummary, kw_only=True, tag="response.reasoning_summary_text.done"):
    """All of it."""

    text: str


class ArgumentsDelta(_InItem, kw_only=True, tag="response.function_call_arguments.delta"):
    """More of a call's arguments."""

    delta: str


class ArgumentsDone(_InItem, kw_only=True, tag="response.function_call_arguments.done"):
    """All of them."""

    name: str
    arguments: str


AnyResponseEvent = (
    ResponseCreated | ResponseQueued | ResponseInProgress
    | ResponseCompleted | ResponseIncomplete | ResponseFailed | StreamError
    | ItemAdded | ItemDone | PartAdded | PartDone | TextDelta | TextDone
    | ReasoningTextDelta | ReasoningTextDone
    | SummaryPartAdded | SummaryPartDone | SummaryTextDelta | SummaryTextDone
    | ArgumentsDelta | ArgumentsDone
)  # fmt: skip


def stream_error(error: Exception, number: int) -> StreamError:
    """The event that says why a stream broke off."""
    detail = describe(error)[1].error
    return StreamError(sequence_number=number, code=detail.code, message=detail.message, param=detail.param)


def event_frame(event: ResponseEvent) -> bytes:
    """One event as bytes: its name, then itself."""
    name = str(event.__struct_config__.tag).encode()
    return b"event: %b\ndata: %b\n\n" % (name, line_json(event))
