"""Parts of a conversation -> events of a response, and the response itself.

The response is the same whether its events are sent or not: a stream and a plain reply come from here alike.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import msgspec

from octavo.base.errors import RequestError
from octavo.server.conversation import AnswerPart
from octavo.server.errors import describe
from octavo.server.openai.responses.events import (
    ResponseCompleted,
    ResponseCreated,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseQueued,
    stream_error,
)
from octavo.server.openai.responses.ids import output_item_id
from octavo.server.openai.responses.open_items import (
    IN_PROGRESS,
    OpenCall,
    OpenItem,
    OpenMessage,
)
from octavo.server.openai.responses.open_reasoning import OpenReasoning, OpenSummary
from octavo.server.openai.responses.reply import (
    IncompleteDetails,
    ResponseFailure,
    ResponseReply,
    ResponseUsage,
)
from octavo.server.openai.responses.token_logprobs import TokenLogprobs
from octavo.server.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallBegin,
)

QUEUED = "queued"


class ResponseWriter:
    """Writes one response. `reply` is its state so far."""

    def __init__(self, reply: ResponseReply, *, has_summary: bool, logprobs: TokenLogprobs | None) -> None:
        self.reply = reply
        self._open_reasoning: Callable[..., OpenReasoning | OpenSummary] = (
            OpenSummary if has_summary else OpenReasoning
        )
        self._logprobs = logprobs
        self._numbers = itertools.count()
        self._open: OpenItem | None = None
        self._finish_reason: str | None = None

    def begin(self) -> list[ResponseEvent]:
        """It exists; it waits or goes on."""
        second = ResponseQueued if self.reply.status == QUEUED else ResponseInProgress
        return [self._whole(ResponseCreated), self._whole(second)]

    def read(self, part: AnswerPart) -> list[ResponseEvent]:
        """Take what is new."""
        written: list[ResponseEvent] = []
        if self.reply.status == QUEUED:
            self.reply.status = IN_PROGRESS
            written.append(self._whole(ResponseInProgress))
        if self._logprobs is not None:
            self._logprobs.came(part.token_ids, part.logprobs)
        for event in part.events:
            written += self._read(event)
        self._finish_reason = part.finish_reason
        return written

    def end(self, usage: ResponseUsage) -> list[ResponseEvent]:
        """The last part was read."""
        is_cut = self._finish_reason == "length"
        written: list[ResponseEvent] = []
        if self._open is None and not self.reply.output:  # An answer of no text is still an answer.
            written += self._begin(OpenMessage, "message")
        written += self._close("incomplete" if is_cut else "completed")
        self.reply.usage = usage
        if is_cut:
            self.reply.status = "incomplete"
            self.reply.incomplete_details = IncompleteDetails("max_output_tokens")
            return [*written, self._whole(ResponseIncomplete)]
        self.reply.status = "completed"
        self.reply.completed_at = int(time.time())
        return [*written, self._whole(ResponseCompleted)]

    def fail(self, error: Exception) -> list[ResponseEvent]:
        """It broke off. The item that was open stays in the events only."""
        _, body = describe(error)
        code = "invalid_prompt" if isinstance(error, RequestError) else "server_error"
        self.reply.status = "failed"
        self.reply.error = ResponseFailure(code, body.error.message)
        return [self._whole(ResponseFailed)]

    def cancel(self) -> list[ResponseEvent]:
        """Its owner ended it. The API has no event of that name: the response says how it ended."""
        written = self._close("incomplete")
        self.reply.status = "cancelled"
        return [*written, self._whole(ResponseIncomplete)]

    def broken(self, error: Exception) -> ResponseEvent:
        """The stream ends here, whatever becomes of the response."""
        return stream_error(error, next(self._numbers))

    def _read(self, event: Event) -> list[ResponseEvent]:
        if isinstance(event, ContentDelta):
            return self._content(event.text)
        if self._logprobs is not None:
            self._logprobs.drop()
        if isinstance(event, ReasoningDelta):
            return self._reasoning(event.text)
        if isinstance(event, ToolCallBegin):
            return self._begin(OpenCall, "function_call", event.call_id, event.name)
        assert isinstance(self._open, OpenCall), "calls come one after the other, each between its ends"
        if isinstance(event, ToolArgumentsDelta):
            return [self._open.add(event.text)]
        return self._close("completed" if event.is_complete else "incomplete")

    def _content(self, text: str) -> list[ResponseEvent]:
        logprobs = [] if self._logprobs is None else self._logprobs.of(text)
        item = self._open
        if isinstance(item, OpenMessage):
            return [item.add(text, logprobs)]
        written = self._begin(OpenMessage, "message")
        assert isinstance(self._open, OpenMessage), "just opened"
        return [*written, self._open.add(text, logprobs)]

    def _reasoning(self, text: str) -> list[ResponseEvent]:
        item = self._open
        if isinstance(item, OpenReasoning | OpenSummary):
            return [item.add(text)]
        written = self._begin(self._open_reasoning, "reasoning")
        assert isinstance(self._open, OpenReasoning | OpenSummary), "just opened"
        return [*written, self._open.add(text)]

    def _begin(self, kind: Callable[..., OpenItem], name: str, *details: str) -> list[ResponseEvent]:
        closed = self._close("completed")
        index = len(self.reply.output)
        self._open = kind(output_item_id(name, self.reply.id, index), index, self._numbers, *details)
        return [*closed, *self._open.begin()]

    def _close(self, status: str) -> list[ResponseEvent]:
        item, self._open = self._open, None
        if item is None:
            return []
        written = item.end(status)
        self.reply.output = [*self.reply.output, item.item(status)]
        return written

    def _whole(self, kind: Callable[..., ResponseEvent]) -> ResponseEvent:
        # A copy: events are written later than they are made.
        state = msgspec.structs.replace(self.reply)
        return kind(sequence_number=next(self._numbers), response=state)
