"""Events of an answer -> content blocks that begin, grow and end one after the other.

The same for streams and whole replies, so that both hold the same blocks. Hot path: `feed` runs once per
streamed token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json

from octavo.server.anthropic.reply import (
    Block,
    BlockDelta,
    BlockStart,
    BlockStop,
    InputJsonDelta,
    SignatureDelta,
    TextBlock,
    TextBlockDelta,
    ThinkingBlock,
    ThinkingBlockDelta,
    ToolUseBlock,
)
from octavo.server.parsing.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallBegin,
)

BlockEvent = BlockStart | BlockDelta | BlockStop

SIGNATURE = "octavo"
"""Clients want thinking signed. We check no signatures, so there is nothing to prove with one."""


class ContentBlocks:
    """One answer. Text of nothing but white space between other blocks is left out."""

    def __init__(self, *, shows_thinking: bool) -> None:
        self._shows_thinking = shows_thinking
        self._index = -1
        self._open: type[Block] | None = None
        self._space: list[str] = []
        """White space that will be part of a text block if more text follows."""

    def feed(self, event: Event) -> list[BlockEvent]:
        if isinstance(event, ContentDelta):
            return self._text(event.text)
        if isinstance(event, ReasoningDelta):
            return self._thinking(event.text)
        if isinstance(event, ToolCallBegin):
            return self._begin(ToolUseBlock(event.call_id, event.name, {}))
        if isinstance(event, ToolArgumentsDelta):
            return [BlockDelta(self._index, InputJsonDelta(event.text))] if event.text else []
        return self.finish()

    def finish(self) -> list[BlockEvent]:
        """End the block that is open."""
        self._space.clear()
        is_open, self._open = self._open, None
        if is_open is None:
            return []
        stop = BlockStop(self._index)
        if is_open is ThinkingBlock:
            return [BlockDelta(self._index, SignatureDelta(SIGNATURE)), stop]
        return [stop]

    def _text(self, text: str) -> list[BlockEvent]:
        if self._open is TextBlock:
            return [BlockDelta(self._index, TextBlockDelta(text))] if text else []
        if not text or text.isspace():
            self._space.append(text)
            return []
        text = "".join(self._space) + text
        return [*self._begin(TextBlock("")), BlockDelta(self._index, TextBlockDelta(text))]

    def _thinking(self, text: str) -> list[BlockEvent]:
        begun = [] if self._open is ThinkingBlock else self._begin(ThinkingBlock("", ""))
        if not self._shows_thinking or not text:
            return begun
        return [*begun, BlockDelta(self._index, ThinkingBlockDelta(text))]

    def _begin(self, block: Block) -> list[BlockEvent]:
        ended = self.finish()
        self._index += 1
        self._open = type(block)
        return [*ended, BlockStart(self._index, block)]


def whole_blocks(events: Iterable[BlockEvent]) -> list[Block]:
    """What a client makes of these events in the end."""
    blocks: list[Block] = []
    parts: list[str] = []
    for event in events:
        if isinstance(event, BlockStart):
            blocks.append(event.content_block)
            parts = []
        elif isinstance(event, BlockStop):
            _fill(blocks[-1], "".join(parts))
        elif isinstance(event.delta, TextBlockDelta):
            parts.append(event.delta.text)
        elif isinstance(event.delta, ThinkingBlockDelta):
            parts.append(event.delta.thinking)
        elif isinstance(event.delta, InputJsonDelta):
            parts.append(event.delta.partial_json)
    return blocks


def _fill(block: Block, text: str) -> None:
    if isinstance(block, TextBlock):
        block.text = text
    elif isinstance(block, ThinkingBlock):
        block.thinking, block.signature = text, SIGNATURE
    else:
        block.input = _object(text)


def _object(text: str) -> dict[str, Any]:
    """The arguments of a call; as much as there is of them if max_tokens cut them off."""
    if not text.strip():
        return {}
    try:
        value = from_json(text, allow_partial=True)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": text}
