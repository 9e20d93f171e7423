"""Items of an answer while they grow: each knows the events that say so.

An item in an event is never changed afterwards; `end` makes a new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from octavo.server.openai.responses.events import (
    ArgumentsDelta,
    ArgumentsDone,
    ItemAdded,
    ItemDone,
    PartAdded,
    PartDone,
    ResponseEvent,
    TextDelta,
    TextDone,
)
from octavo.server.openai.responses.reply import (
    FunctionCallItem,
    MessageItem,
    OutputItem,
    OutputText,
)
from octavo.server.openai.schema.chat import TokenLogprob

IN_PROGRESS = "in_progress"


class OpenItem(ABC):
    """What all kinds share: their place, and how they end."""

    def __init__(self, item_id: str, output_index: int, numbers: Iterator[int]) -> None:
        self.item_id = item_id
        self.output_index = output_index
        self._numbers = numbers
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def begin(self) -> list[ResponseEvent]:
        """Events that open the item."""
        return [
            ItemAdded(
                sequence_number=next(self._numbers),
                output_index=self.output_index,
                item=self.item(IN_PROGRESS),
            )
        ]

    @abstractmethod
    def item(self, status: str) -> OutputItem:
        """The item as it is now."""

    def end(self, status: str) -> list[ResponseEvent]:
        """Events that close it."""
        return [
            ItemDone(
                sequence_number=next(self._numbers), output_index=self.output_index, item=self.item(status)
            )
        ]


class OpenMessage(OpenItem):
    """Content."""

    def __init__(self, item_id: str, output_index: int, numbers: Iterator[int]) -> None:
        super().__init__(item_id, output_index, numbers)
        self._logprobs: list[TokenLogprob] = []

    def item(self, status: str) -> MessageItem:
        content = [] if status == IN_PROGRESS else [self._part()]
        return MessageItem(id=self.item_id, status=status, content=content)

    def begin(self) -> list[ResponseEvent]:
        return [
            *super().begin(),
            PartAdded(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                part=OutputText(text=""),
            ),
        ]

    def add(self, text: str, logprobs: list[TokenLogprob]) -> ResponseEvent:
        self._texts.append(text)
        self._logprobs += logprobs
        return TextDelta(
            sequence_number=next(self._numbers),
            item_id=self.item_id,
            output_index=self.output_index,
            delta=text,
            logprobs=logprobs,
        )

    def end(self, status: str) -> list[ResponseEvent]:
        part = self._part()
        return [
            TextDone(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                text=part.text,
                logprobs=part.logprobs,
            ),
            PartDone(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                part=part,
            ),
            *super().end(status),
        ]

    def _part(self) -> OutputText:
        return OutputText(text=self.text, logprobs=self._logprobs)


class OpenCall(OpenItem):
    """A call of a function."""

    def __init__(
        self, item_id: str, output_index: int, numbers: Iterator[int], call_id: str, name: str
    ) -> None:
        super().__init__(item_id, output_index, numbers)
        self._call_id = call_id
        self._name = name

    def item(self, status: str) -> FunctionCallItem:
        return FunctionCallItem(
            id=self.item_id, status=status, call_id=self._call_id, name=self._name, arguments=self.text
        )

    def add(self, text: str) -> ResponseEvent:
        self._texts.append(text)
        return ArgumentsDelta(
            sequence_number=next(self._numbers),
            item_id=self.item_id,
            output_index=self.output_index,
            delta=text,
        )

    def end(self, status: str) -> list[ResponseEvent]:
        return [
            ArgumentsDone(
                sequence_number=next(self._numbers),
                item_id=self.item_id,
                output_index=self.output_index,
                name=self._name,
                arguments=self.text,
            ),
            *super().end(status),
        ]
