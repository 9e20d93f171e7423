"""What a model thinks while it grows, in the two ways of showing it."""

from __future__ import annotations

from octavo.server.openai.responses.events import (
    PartAdded,
    PartDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    ResponseEvent,
    SummaryPartAdded,
    SummaryPartDone,
    SummaryTextDelta,
    SummaryTextDone,
)
from octavo.server.openai.responses.open_items import IN_PROGRESS, OpenItem
from octavo.server.openai.responses.reply import ReasoningItem, ReasoningText, SummaryText


class OpenReasoning(OpenItem):
    """What the model thinks, in the clear."""

    def item(self, status: str) -> ReasoningItem:
        content = [] if status == IN_PROGRESS else [ReasoningText(self.text)]
        return ReasoningItem(id=self.item_id, status=status, content=content)

    def begin(self) -> list[ResponseEvent]:
        return [
            *super().begin(),
            PartAdded(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                part=ReasoningText(""),
            ),
        ]

    def add(self, text: str) -> ResponseEvent:
        self._texts.append(text)
        return ReasoningTextDelta(
            sequence_number=next(self._numbers),
            item_id=self.item_id,
            output_index=self.output_index,
            delta=text,
        )

    def end(self, status: str) -> list[ResponseEvent]:
        return [
            ReasoningTextDone(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                text=self.text,
            ),
            PartDone(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                part=ReasoningText(self.text),
            ),
            *super().end(status),
        ]


class OpenSummary(OpenItem):
    """What the model thinks, said where clients look for a summary."""

    def item(self, status: str) -> ReasoningItem:
        summary = [] if status == IN_PROGRESS else [SummaryText(self.text)]
        return ReasoningItem(id=self.item_id, status=status, summary=summary)

    def begin(self) -> list[ResponseEvent]:
        return [
            *super().begin(),
            SummaryPartAdded(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                part=SummaryText(""),
            ),
        ]

    def add(self, text: str) -> ResponseEvent:
        self._texts.append(text)
        return SummaryTextDelta(
            sequence_number=next(self._numbers),
            item_id=self.item_id,
            output_index=self.output_index,
            delta=text,
        )

    def end(self, status: str) -> list[ResponseEvent]:
        return [
            SummaryTextDone(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                text=self.text,
            ),
            SummaryPartDone(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                part=SummaryText(self.text),
            ),
            *super().end(status),
        ]
