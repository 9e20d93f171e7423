"""A conversation's answer in Ollama's words: one reply, or lines. Hot path: once per streamed token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

import msgspec

from octavo.engine.outputs import LogprobsOnePosition
from octavo.server.conversation import Answer, AnswerPart, Conversation, ToolCall
from octavo.server.ollama.lines import line
from octavo.server.ollama.schema.chat import OllamaCalledFunction, OllamaMadeCall
from octavo.server.ollama.schema.common import AnswerBody, Reply
from octavo.server.ollama.times import Durations
from octavo.server.openai.logprobs import LogprobFormat
from octavo.server.parsing.events import (
    ContentDelta,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallBegin,
    ToolCallEnd,
)
from octavo.server.serving import Serving

R = TypeVar("R", bound=Reply)


class AnswerWriter(ABC, Generic[R]):
    """Writes the one answer of a request. Each route has its own kind of reply."""

    def __init__(self, serving: Serving, body: AnswerBody, conversation: Conversation, began: float) -> None:
        self._model = body.model
        self._conversation = conversation
        self._began = began
        self._logprobs = LogprobFormat(serving.tokenizer, as_token_ids=False) if body.logprobs else None
        self._top = body.top_logprobs or 0
        self._calls: dict[int, ToolCall] = {}
        """Calls whose arguments are still coming."""
        self._token_ids: list[int] = []

    @abstractmethod
    def _says(self, content: str, thinking: str, calls: list[OllamaMadeCall]) -> R:
        """A reply of the route's kind."""

    def whole(self, answer: Answer) -> R:
        """All of it at once."""
        content, calls = answer.content, []
        for number, call in enumerate(answer.tool_calls):
            made = _made(number, call)
            if made is None:
                content += call.arguments
            else:
                calls.append(made)
        self._token_ids = answer.token_ids
        reply = self._says(content, answer.reasoning, calls)
        self._add_logprobs(reply, answer.token_ids, answer.logprobs)
        return self._ended(reply, answer.finish_reason)

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """What is new as it comes, then the measures."""
        async with aclosing(self._conversation.parts()) as parts:
            async for part in parts:
                reply = self._news(part)
                if reply is not None:
                    yield line(reply)
                if part.finish_reason is not None:
                    yield line(self._ended(self._says("", "", []), part.finish_reason))

    def _news(self, part: AnswerPart) -> R | None:
        """A line, unless nothing has become certain."""
        self._token_ids += part.token_ids
        content, thinking, calls = "", "", []
        for event in part.events:
            if isinstance(event, ContentDelta):
                content += event.text
            elif isinstance(event, ReasoningDelta):
                thinking += event.text
            elif isinstance(event, ToolCallBegin):
                self._calls[event.number] = ToolCall(call_id=event.call_id, name=event.name, arguments="")
            elif isinstance(event, ToolArgumentsDelta):
                self._calls[event.number].arguments += event.text
            elif isinstance(event, ToolCallEnd):
                call = self._calls.pop(event.number)
                made = _made(event.number, call)
                if made is None:
                    content += call.arguments
                else:
                    calls.append(made)
        if not (content or thinking or calls or (self._logprobs is not None and part.token_ids)):
            return None
        reply = self._says(content, thinking, calls)
        self._add_logprobs(reply, part.token_ids, part.logprobs)
        return reply

    def _add_logprobs(
        self, reply: R, token_ids: Sequence[int], logprobs: Sequence[LogprobsOnePosition] | None
    ) -> None:
        if self._logprobs is not None and logprobs is not None:
            reply.logprobs = self._logprobs.chat(token_ids, logprobs, self._top).content

    def _ended(self, reply: R, finish_reason: str) -> R:
        """The last reply, with its measures. Calls end an answer like any other text."""
        output = self._conversation.last_output
        assert output is not None, "it has ended"
        durations = Durations(self._began, output)
        usage = self._conversation.usage.usage()
        reply.done = True
        reply.done_reason = "length" if finish_reason == "length" else "stop"
        reply.total_duration = durations.total
        reply.load_duration = durations.load
        reply.prompt_eval_count = usage.prompt_tokens
        reply.prompt_eval_duration = durations.prompt
        reply.eval_count = usage.completion_tokens
        reply.eval_duration = durations.answer
        return reply


def _made(number: int, call: ToolCall) -> OllamaMadeCall | None:
    """A call with its arguments as an object; None if they are none, being cut off for example."""
    text = call.arguments.strip() or "{}"
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None
    if not isinstance(arguments, dict):
        return None
    return OllamaMadeCall(call.call_id, OllamaCalledFunction(number, call.name, arguments))
