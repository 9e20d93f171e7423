"""What a stream of text turns out to be. Every protocol writes these in its own words."""

from __future__ import annotations

from typing import Protocol

import msgspec


class ContentDelta(msgspec.Struct):
    """More of the answer itself."""

    text: str


class ReasoningDelta(msgspec.Struct):
    """More of what the model thinks before it answers."""

    text: str


class ToolCallBegin(msgspec.Struct):
    """A call begins: its name is complete. Calls of one answer are numbered from 0."""

    number: int
    call_id: str
    name: str


class ToolArgumentsDelta(msgspec.Struct):
    """More of the arguments, as JSON text. All deltas of a complete call joined are one JSON object."""

    number: int
    text: str


class ToolCallEnd(msgspec.Struct):
    """No more arguments come."""

    number: int
    is_complete: bool = True
    """False if the model broke off or wrote arguments that are not JSON: the text is then what it wrote."""


Event = ContentDelta | ReasoningDelta | ToolCallBegin | ToolArgumentsDelta | ToolCallEnd


class StreamParser(Protocol):
    """Text in pieces of any size -> events. The events say the same however the text is cut."""

    def feed(self, text: str) -> list[Event]:
        """Events that are certain now. What may still become a marker is held back."""

    def finish(self) -> list[Event]:
        """The text is over: what was held back, and the end of calls that were open."""


class PlainParser:
    """All is content."""

    def feed(self, text: str) -> list[Event]:
        return [ContentDelta(text)] if text else []

    def finish(self) -> list[Event]:
        return []
