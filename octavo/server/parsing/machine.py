"""The machine that reads an answer: content, reasoning and calls, as their formats' data say.

The rule for what is not well formed: until a call's name is certain, everything from its opening marker on
is held (at most MAX_RECORD characters) and becomes text as it was written if it turns out to be no call.
From the name on, arguments go out as they come and are never taken back; where they break off, the call
ends as incomplete and what follows is text again. Markers behind a call are dropped, all other text is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from octavo.server.parsing import channels
from octavo.server.parsing.events import Event
from octavo.server.parsing.formats.contract import ToolFormat
from octavo.server.parsing.json_text import pass_json
from octavo.server.parsing.markers import Markers, markers
from octavo.server.parsing.output import Output
from octavo.server.parsing.reasoning import HARMONY, ReasoningFormat
from octavo.server.parsing.scanner import Reading, Scanner

LONGEST_LAYOUT = 3
"""Closing markers up to this length, such as ; or ```, count only right behind a call."""


class Machine:
    """Runs a reader over text that arrives in pieces. Hot path: once per streamed token."""

    def __init__(self, reader: Callable[[Scanner, Output], Reading[None]], output: Output) -> None:
        self._scanner = Scanner()
        self._output = output
        self._run: Iterator[None] = reader(self._scanner, output)

    def feed(self, text: str) -> list[Event]:
        if text:
            self._scanner.feed(text)
            next(self._run)
        return self._output.take()

    def finish(self) -> list[Event]:
        self._scanner.finish()
        for _ in self._run:
            raise AssertionError("a reader waits for text though there is none to come")
        self._output.finish()
        return self._output.take()


class AnswerReader:
    """Reads a whole answer. Immutable but for what it has read."""

    def __init__(
        self, tools: ToolFormat | None, reasoning: ReasoningFormat | None, *, starts_in_reasoning: bool
    ) -> None:
        self._tools = tools
        self._reasoning = reasoning
        self._in_reasoning = starts_in_reasoning
        self._has_channels = reasoning is HARMONY
        opens = tools.opens if tools else ()
        heads = channels.BEGINS if self._has_channels else ()
        begins = reasoning.begins if reasoning else ()
        ends = reasoning.ends if reasoning else ()
        marks = reasoning.answer_marks if reasoning else ()
        self._begins_anywhere = reasoning is not None and reasoning.begins_anywhere
        self._opens = frozenset(opens)
        self._heads = frozenset(heads)
        self._begins = frozenset(begins)
        self._ends = frozenset(ends)
        closes = tools.closes if tools else ()
        late = tuple(close for close in closes if len(close) > LONGEST_LAYOUT)
        dropped = (*marks, *(ends if self._has_channels else ()))
        self._in_content_before_calls = markers(*opens, *heads, *begins, *dropped)
        self._in_content = markers(*opens, *heads, *begins, *dropped, *late)
        self._in_thought = markers(*opens, *heads, *ends)

    def __call__(self, scanner: Scanner, output: Output) -> Reading[None]:
        if self._has_channels:
            yield from self._open_header(scanner, output)
        while True:
            if not self._in_reasoning and (yield from self._try_start(scanner, output)):
                continue
            marker = yield from self._text(scanner, output)
            if marker is None:
                return
            yield from self._obey(marker, scanner, output)

    def _text(self, scanner: Scanner, output: Output) -> Reading[str | None]:
        """Text up to the next marker; None at the end."""
        if self._in_reasoning:
            emit, wanted = output.reasoning, self._in_thought
        else:
            emit, wanted = output.content, self._content_markers(output)
        while True:
            text, marker = scanner.piece(wanted)
            if text:
                emit(text)
            if marker is not None or scanner.is_over:
                return marker
            yield

    def _content_markers(self, output: Output) -> Markers:
        return self._in_content if output.num_calls else self._in_content_before_calls

    def _obey(self, marker: str, scanner: Scanner, output: Output) -> Reading[None]:
        if marker in self._opens:
            assert self._tools is not None, "only formats open calls"
            scanner.record(marker)
            yield from self._read_calls(self._tools, scanner, output, marker)
        elif marker in self._heads:
            scanner.record(marker)
            yield from self._header(scanner, output)
        elif marker in self._begins and output.has_content and not self._begins_anywhere:
            output.content(marker)
        else:
            output.marker()
            self._in_reasoning = marker in self._begins

    def _read_calls(
        self, tools: ToolFormat, scanner: Scanner, output: Output, opened_by: str
    ) -> Reading[bool]:
        before = output.num_calls
        is_read = yield from tools.body.read(scanner, output, opened_by)
        rest = "" if is_read else scanner.recorded()
        scanner.forget()
        has_calls = output.num_calls > before
        if has_calls:
            self._in_reasoning = False
        if rest:
            (output.reasoning if self._in_reasoning else output.content)(rest)
        if has_calls and not rest.strip():
            yield from self._drop_closes(tools, scanner, output)
        return has_calls

    def _drop_closes(self, tools: ToolFormat, scanner: Scanner, output: Output) -> Reading[None]:
        """Right behind a call: white space and closing markers of any length; each layout once, before those
        that are sure, for the text behind may begin like one."""
        closes = tools.closes
        while True:
            scanner.record()
            yield from scanner.skip_space()
            found = yield from scanner.accept(*closes)
            if found is None:
                break
            scanner.forget()
            output.marker()
            is_layout = len(found) <= LONGEST_LAYOUT
            closes = tuple(
                close for close in closes if len(close) > LONGEST_LAYOUT or (is_layout and close != found)
            )
        output.content(scanner.recorded())

    def _try_start(self, scanner: Scanner, output: Output) -> Reading[bool]:
        """A call without a marker, where an answer's text begins."""
        tools = self._tools
        if tools is None or not tools.starts or output.has_content:
            return False
        scanner.record()
        yield from scanner.skip_space()
        start = yield from scanner.accept(*tools.starts)
        if start is None:
            output.content(scanner.recorded())
            return False
        return (yield from self._read_calls(tools, scanner, output, start))

    def _open_header(self, scanner: Scanner, output: Output) -> Reading[None]:
        scanner.record()
        if (yield from scanner.accept(channels.RECIPIENT_FIRST)) is None:
            output.content(scanner.recorded())
        else:
            yield from self._header(scanner, output)

    def _header(self, scanner: Scanner, output: Output) -> Reading[None]:
        """From a header's beginning, which is recorded, into its message."""
        found = yield from scanner.until(markers(channels.MESSAGE), channels.MAX_HEADER)
        text = scanner.recorded()
        if found is None:
            if not channels.is_cut_header(text):
                output.content(text)
            return
        output.marker()
        header = channels.header_of(text)
        self._in_reasoning = header.is_reasoning
        # The model leaves out the namespace at times.
        tool = header.recipient if header.recipient in output.schemas else header.tool
        if tool is None or self._tools is None:
            return
        self._in_reasoning = False
        output.call_begins(tool)
        yield from scanner.skip_space()
        output.call_ends(is_complete=(yield from pass_json(scanner, output.arguments)))
