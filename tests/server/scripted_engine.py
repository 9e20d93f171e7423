"""A fake engine that says what a test wants said, and a parser of a small markup for its text.

The markup stands for all formats of models: `<think>...</think>` and `<call NAME>{...}</call>`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from server_fakes import FakeEngine

from octavo.engine.outputs import CompletionOutput, RequestOutput
from octavo.messages.params import RequestOutputKind, SamplingParams
from octavo.server.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallBegin,
    ToolCallEnd,
)

TAG = re.compile(r"<think>|</think>|<call (\w+)>|</call>")


@dataclass
class ScriptedEngine(FakeEngine):
    """Every answer is `script`, one piece of `piece` characters per token."""

    script: str = ""
    piece: int = 3
    finish_reason: str = "stop"
    stop_reason: str | None = None

    async def _stream(
        self, prompt: list[int], params: SamplingParams, request_id: str
    ) -> AsyncIterator[RequestOutput]:
        pieces = [self.script[k : k + self.piece] for k in range(0, len(self.script), self.piece)] or [""]
        if params.output_kind is RequestOutputKind.FINAL_ONLY:
            yield self._said(prompt, request_id, self.script, len(pieces), True)
            return
        for number, text in enumerate(pieces, 1):
            await self._trouble(number)
            yield self._said(prompt, request_id, text, 1, number == len(pieces))

    def _said(
        self, prompt: list[int], request_id: str, text: str, num_tokens: int, is_last: bool
    ) -> RequestOutput:
        part = CompletionOutput(
            index=0,
            text=text,
            token_ids=[65] * num_tokens,
            finish_reason=self.finish_reason if is_last else None,
            stop_reason=self.stop_reason if is_last else None,
        )
        return RequestOutput(
            request_id=request_id,
            prompt=None,
            prompt_token_ids=prompt,
            outputs=[part],
            finished=is_last,
            num_cached_tokens=len(prompt) // 2,
        )


class MarkupParser:
    """Holds back what may still become a tag."""

    def __init__(self) -> None:
        self._text = ""
        self._inside = ""
        self._num_calls = 0

    def feed(self, text: str) -> list[Event]:
        self._text += text
        events: list[Event] = []
        while (match := TAG.search(self._text)) is not None:
            events += self._piece(self._text[: match.start()])
            events += self._tag(match)
            self._text = self._text[match.end() :]
        cut = self._text.rfind("<")
        cut = len(self._text) if cut < 0 else cut
        events += self._piece(self._text[:cut])
        self._text = self._text[cut:]
        return events

    def finish(self) -> list[Event]:
        return [
            *self._piece(self._text),
            *([ToolCallEnd(self._num_calls - 1, False)] * (self._inside == "call")),
        ]

    def _piece(self, text: str) -> list[Event]:
        if not text:
            return []
        if self._inside == "call":
            return [ToolArgumentsDelta(self._num_calls - 1, text)]
        return [ReasoningDelta(text) if self._inside == "think" else ContentDelta(text)]

    def _tag(self, match: re.Match[str]) -> list[Event]:
        if match[0] == "</call>":
            self._inside = ""
            return [ToolCallEnd(self._num_calls - 1)]
        self._inside = "call" if match[1] else "think" if match[0] == "<think>" else ""
        if not match[1]:
            return []
        self._num_calls += 1
        return [ToolCallBegin(self._num_calls - 1, f"call_{self._num_calls}", match[1])]


def use_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.server.conversation.parser_maker", lambda *_: MarkupParser)
