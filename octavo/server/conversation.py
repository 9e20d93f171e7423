"""Conversation: one chat request in the engine, read as events, whatever protocol it came in.

Each protocol translates its body into a ChatBody, opens a conversation and writes its parts in its own
words. Hot path: `parts` runs once per streamed token.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
from starlette.types import Receive

from octavo.engine.outputs import CompletionOutput, LogprobsOnePosition, RequestOutput
from octavo.server.disconnect import while_connected
from octavo.server.merge import Item
from octavo.server.openai.schema.chat import ChatBody
from octavo.server.openai.usage import UsageCount
from octavo.server.parsing.choose import parser_maker
from octavo.server.parsing.events import (
    ContentDelta,
    Event,
    PlainParser,
    ReasoningDelta,
    StreamParser,
    ToolArgumentsDelta,
    ToolCallBegin,
)
from octavo.server.render.chat import render_chat
from octavo.server.render.rendered import Rendered
from octavo.server.replies import off_loop_if_long, weighed
from octavo.server.serving import Serving
from octavo.server.slow_parts import with_slow_parts
from octavo.server.submit import Submission, submit


class AnswerPart(msgspec.Struct, kw_only=True):
    """What is new of one answer."""

    index: int
    """Which of the n answers."""
    events: list[Event]
    token_ids: list[int]
    logprobs: list[LogprobsOnePosition] | None = None
    finish_reason: str | None = None
    """None while it runs, then stop, length or tool_calls."""
    stop_reason: int | str | None = None


@dataclass(kw_only=True)
class ToolCall:
    """A complete call."""

    call_id: str
    name: str
    arguments: str
    """JSON text of an object."""


@dataclass(kw_only=True)
class Answer:
    """One whole answer."""

    index: int
    content: str
    reasoning: str
    tool_calls: list[ToolCall] = field(default_factory=list)
    token_ids: list[int]
    logprobs: list[LogprobsOnePosition] | None
    finish_reason: str
    stop_reason: int | str | None


@dataclass
class _Reading:
    """One answer while it is read."""

    parser: StreamParser
    has_calls: bool = False
    reasoning: list[str] = field(default_factory=list)

    def note(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ReasoningDelta):
                self.reasoning.append(event.text)
            elif isinstance(event, ToolCallBegin):
                self.has_calls = True


class Conversation:
    """Admitted to the engine before it is made; runs with the first step of `parts` or `answers`."""

    def __init__(
        self, serving: Serving, body: ChatBody | None, rendered: Rendered, submission: Submission
    ) -> None:
        """`body` None: the prompt is plain text, and so is all of the answer."""
        self.usage = UsageCount()
        self.prompt_token_ids = rendered.prompts[0].token_ids
        self.last_output: RequestOutput | None = None
        """With prompt log-probabilities and metrics, once it has finished."""
        self._make_parser: Callable[[], StreamParser] = (
            PlainParser if body is None else parser_maker(serving, body, self.prompt_token_ids)
        )
        self.is_plain = self._make_parser is PlainParser
        """All of every answer is content: `plain_outputs` say as much as `parts`, for less."""
        self._tokenizer = serving.tokenizer
        self._readings: dict[int, _Reading] = {}
        self._submission = submission

    async def parts(self) -> AsyncGenerator[AnswerPart, None]:
        """Parts of all n answers as they come. Closing it early aborts the request."""
        async with aclosing(self._submission.outputs()) as outputs:
            async for _, output in outputs:
                self.note(output)
                for part in output.outputs:
                    read = self._read(part)
                    if part.finish_reason is not None:
                        await self._count_reasoning(part.index)
                    yield read

    def plain_outputs(self) -> AsyncGenerator[Item, None]:
        """What the engine says, unread, for who writes plain answers; `note` each. Only where `is_plain`."""
        return self._submission.outputs()

    def note(self, output: RequestOutput) -> None:
        """Count an output."""
        self.usage.add(0, output)
        self.last_output = output

    async def answers(self, receive: Receive) -> list[Answer]:
        """All answers, in order. Ends with ClientGone if the client leaves first."""
        return [_whole(part) for part in await self.whole_parts(receive)]

    async def whole_parts(self, receive: Receive) -> list[AnswerPart]:
        """The same as events: one part for each answer."""
        (output,) = await while_connected(receive, self._submission.results())
        self.note(output)
        parts = sorted(output.outputs, key=lambda part: part.index)
        num_chars = 0 if self.is_plain else sum(len(part.text) for part in parts)
        read = await off_loop_if_long(num_chars, lambda: [self._read(part) for part in parts])
        for part in parts:
            await self._count_reasoning(part.index)
        return read

    async def _count_reasoning(self, index: int) -> None:
        """An answer is over: its reasoning, tokenized again, tells how many of its tokens that was."""
        thought = "".join(self._readings[index].reasoning)
        if thought:
            token_ids = await off_loop_if_long(len(thought), self._tokenizer.encode, thought, False)
            self.usage.add_reasoning(len(token_ids))

    def _read(self, part: CompletionOutput) -> AnswerPart:
        reading = self._readings.get(part.index)
        if reading is None:
            reading = self._readings[part.index] = _Reading(self._make_parser())
        events = reading.parser.feed(part.text)
        reason = part.finish_reason
        if reason is not None:
            events += reading.parser.finish()
        if not self.is_plain:
            reading.note(events)
        if reason == "stop" and reading.has_calls:
            reason = "tool_calls"
        return AnswerPart(
            index=part.index,
            events=events,
            token_ids=part.token_ids,
            logprobs=part.logprobs,
            finish_reason=reason,
            stop_reason=part.stop_reason,
        )


async def open_conversation(serving: Serving, body: ChatBody, num_bytes: int, reply_id: str) -> Conversation:
    """Check, render and admit. `body.stream` decides between `parts` (true) and `answers`."""
    rendered = await off_loop_if_long(weighed(num_bytes, body.chat_template), render_chat, serving, body)
    return await admit_conversation(serving, body, rendered, reply_id)


async def admit_conversation(
    serving: Serving, body: ChatBody | None, rendered: Rendered, reply_id: str
) -> Conversation:
    """The same for who has rendered it already."""
    rendered = await with_slow_parts(serving, rendered)
    return Conversation(serving, body, rendered, await submit(serving, rendered, reply_id))


def _whole(part: AnswerPart) -> Answer:
    assert part.finish_reason is not None, "only final outputs are whole"
    answer = Answer(
        index=part.index,
        content="".join(event.text for event in part.events if isinstance(event, ContentDelta)),
        reasoning="".join(event.text for event in part.events if isinstance(event, ReasoningDelta)),
        token_ids=part.token_ids,
        logprobs=part.logprobs,
        finish_reason=part.finish_reason,
        stop_reason=part.stop_reason,
    )
    for event in part.events:
        if isinstance(event, ToolCallBegin):
            answer.tool_calls.append(ToolCall(call_id=event.call_id, name=event.name, arguments=""))
        elif isinstance(event, ToolArgumentsDelta):
            answer.tool_calls[event.number].arguments += event.text
    return answer
