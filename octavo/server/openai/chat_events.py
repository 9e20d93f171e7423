"""Events and whole answers in the words of the chat API."""

from __future__ import annotations

from msgspec import UNSET

from octavo.server.conversation import Answer
from octavo.server.openai.schema.chat import AnswerMessage, Delta
from octavo.server.openai.schema.tools import (
    AnswerToolCall,
    CalledFunction,
    CalledFunctionDelta,
    ToolCallDelta,
)
from octavo.server.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallBegin,
)

ROLE = "assistant"


class ChatWords:
    """What a body decides about how things are said."""

    def __init__(self, *, shows_reasoning: bool, is_old: bool) -> None:
        """is_old: the body speaks of functions, so its answer has one function_call."""
        self._shows_reasoning = shows_reasoning
        self._is_old = is_old

    def finish_reason(self, reason: str) -> str:
        return "function_call" if self._is_old and reason == "tool_calls" else reason

    def delta(self, event: Event) -> Delta | None:
        """None: the API has no words for it."""
        if isinstance(event, ContentDelta):
            return Delta(content=event.text)
        if isinstance(event, ReasoningDelta):
            if not self._shows_reasoning:
                return None
            return Delta(reasoning_content=event.text, reasoning=event.text)
        if isinstance(event, ToolCallBegin):
            return self._call_delta(event.number, CalledFunctionDelta(event.name, ""), event.call_id)
        if isinstance(event, ToolArgumentsDelta):
            return self._call_delta(event.number, CalledFunctionDelta(arguments=event.text))
        return None

    def _call_delta(self, number: int, function: CalledFunctionDelta, call_id: str | None = None) -> Delta:
        if self._is_old:
            return Delta(function_call=function) if number == 0 else Delta()
        if call_id is None:
            return Delta(tool_calls=[ToolCallDelta(number, function)])
        return Delta(tool_calls=[ToolCallDelta(number, function, call_id, "function")])

    def message(self, answer: Answer, echo: str) -> AnswerMessage:
        content = echo + answer.content
        message = AnswerMessage(ROLE, content if content or not answer.tool_calls else None)
        if answer.reasoning and self._shows_reasoning:
            message.reasoning_content = message.reasoning = answer.reasoning
        calls = [
            AnswerToolCall(call.call_id, CalledFunction(call.name, call.arguments))
            for call in answer.tool_calls
        ]
        if calls and self._is_old:
            message.function_call = calls[0].function
        else:
            message.tool_calls = calls or UNSET
        return message
