"""Output: the events a reader makes, and which white space belongs to them.

White space next to a marker is layout, not text: it is held until it is known what follows it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from octavo.server.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallBegin,
    ToolCallEnd,
)

MAX_HELD_SPACE = 256
"""White space beyond this counts as text: what is held back is bounded."""

ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def call_id() -> str:
    """An id as OpenAI's look."""
    return "call_" + secrets.token_hex(12)


def short_id() -> str:
    """Nine letters and digits: what Mistral's templates take back."""
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(9))


class Output:
    """Collects events; neighbours of one kind become one."""

    def __init__(
        self,
        make_id: Callable[[], str] = call_id,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
        max_calls: int | None = None,
        *,
        in_reasoning: bool = False,
    ) -> None:
        """in_reasoning: the answer goes on with a thought, so white space at its beginning is text."""
        self.schemas = schemas or {}
        """Parameters of each tool the model was shown, by its name."""
        self._make_id = make_id
        self._max_calls = max_calls
        self._events: list[Event] = []
        self._kind: type[ContentDelta | ReasoningDelta | ToolArgumentsDelta] = ContentDelta
        self._pieces: list[str] = []
        """Text of the event that is being made: joined once, or long answers would be copied many times."""
        self._space = ""
        """White space at the end of the text so far."""
        self._skips_space = False
        """Behind a marker, until there is text."""
        self._in_reasoning = in_reasoning
        self.has_content = False
        """Text that is no white space came, outside reasoning, since the last call."""
        self.num_calls = 0

    def take(self) -> list[Event]:
        self._close_event()
        events, self._events = self._events, []
        return events

    def content(self, text: str) -> None:
        self._text(text, False)

    def reasoning(self, text: str) -> None:
        self._text(text, True)

    def _text(self, text: str, in_reasoning: bool) -> None:
        if in_reasoning is not self._in_reasoning:
            self.marker()
            self._in_reasoning = in_reasoning
        if self._skips_space:
            text = text.lstrip()
            if not text:
                return
            self._skips_space = False
        if self._space:
            text = self._space + text
        shown = text.rstrip()
        end = max(len(shown), len(text) - MAX_HELD_SPACE)
        self._space = text[end:]
        if shown:
            self.has_content = not in_reasoning
        if end:
            self._emit(self._text_kind, text[:end])

    def _emit(self, kind: type[ContentDelta | ReasoningDelta | ToolArgumentsDelta], text: str) -> None:
        if kind is not self._kind:
            self._close_event()
            self._kind = kind
        self._pieces.append(text)

    def _close_event(self) -> None:
        if not self._pieces:
            return
        text = "".join(self._pieces)
        self._pieces = []
        if self._kind is ToolArgumentsDelta:
            self._events.append(ToolArgumentsDelta(self.num_calls - 1, text))
        elif self._kind is ReasoningDelta:
            self._events.append(ReasoningDelta(text))
        else:
            self._events.append(ContentDelta(text))

    @property
    def _text_kind(self) -> type[ContentDelta | ReasoningDelta]:
        return ReasoningDelta if self._in_reasoning else ContentDelta

    def marker(self) -> None:
        """A marker was read: white space on both sides of it goes."""
        self._space = ""
        self._skips_space = True

    def finish(self) -> None:
        """No marker follows, so the last white space is text."""
        if self._space:
            self._emit(self._text_kind, self._space)
            self._space = ""

    def call_begins(self, name: str, given_id: str | None = None) -> None:
        self.marker()
        self._close_event()
        self.num_calls += 1
        self.has_content = False
        if self._is_shown:
            self._events.append(ToolCallBegin(self.num_calls - 1, given_id or self._make_id(), name))

    def arguments(self, text: str) -> None:
        if text and self._is_shown:
            self._emit(ToolArgumentsDelta, text)

    def call_ends(self, *, is_complete: bool) -> None:
        self._close_event()
        if self._is_shown:
            self._events.append(ToolCallEnd(self.num_calls - 1, is_complete))

    @property
    def _is_shown(self) -> bool:
        return self._max_calls is None or self.num_calls <= self._max_calls
