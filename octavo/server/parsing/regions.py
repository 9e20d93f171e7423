"""A checkpoint's own `response_template`: named regions of an answer, each between two marks.

The words are transformers': fields with open/close (literals) or open_pattern/close_pattern (regular
expressions), how their content is read, and how calls are put together from it. Patterns come from the
model's files, so they run with a limit of time and text is held back within a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import regex

from octavo.base.errors import ModelFileError
from octavo.server.parsing.output import Output
from octavo.server.parsing.region_values import ContentRule, calls_in
from octavo.server.parsing.scanner import Reading, Scanner

MAX_FIELDS = 32
MAX_PATTERN = 2048
MAX_HELD = 1024
"""Characters that may stay open as the beginning of a mark."""
MAX_BODY = 2**18
"""Characters of one call that are held until it is whole."""
PATTERN_TIMEOUT_S = 0.2

_REASONING = ("reasoning_content", "reasoning", "thinking")
_FIELD_KEYS = {
    "open", "open_pattern", "close", "close_pattern", "content", "content_args", "repeats", "join",
    "optional", "transform", "transform_each",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Region:
    """One field."""

    name: str
    opens: regex.Pattern[str] | None
    """None: text outside all other regions."""
    closes: regex.Pattern[str] | None
    rule: ContentRule


@dataclass(frozen=True, kw_only=True)
class Regions:
    """A response_template that was checked."""

    fields: tuple[Region, ...]
    anchor: regex.Pattern[str] | None
    """Ends what stands before the answer in its prompt."""
    literals: tuple[str, ...]

    @property
    def outside(self) -> Region | None:
        return next((field for field in self.fields if field.opens is None), None)


def read_regions(source: Mapping[str, Any]) -> Regions:
    """Raises ModelFileError for a template that cannot be followed."""
    fields = source.get("fields")
    if source.get("version", 1) != 1 or not isinstance(fields, Mapping) or not 0 < len(fields) <= MAX_FIELDS:
        raise _broken("it must have version 1 and 1 to 32 fields")
    literals: list[str] = []
    made = tuple(_region(str(name), field, literals) for name, field in fields.items())
    if sum(region.opens is None for region in made) > 1:
        raise _broken("more than one field has no open mark")
    anchor = _mark(source, "start_anchor", "start_anchor_pattern", "it", [])
    return Regions(fields=made, anchor=anchor, literals=tuple(literals))


def _region(name: str, field: Any, literals: list[str]) -> Region:
    if not isinstance(field, Mapping) or not field.keys() <= _FIELD_KEYS:
        raise _broken(f"field {name!r} is not an object of known keys")
    return Region(
        name=name,
        opens=_mark(field, "open", "open_pattern", name, literals),
        closes=_mark(field, "close", "close_pattern", name, literals),
        rule=ContentRule(
            content=field.get("content", "text"),
            options=field.get("content_args") or {},
            transform=field.get("transform"),
            is_each=bool(field.get("transform_each")),
        ),
    )


def _mark(
    source: Mapping[str, Any], literal_key: str, pattern_key: str, where: str, literals: list[str]
) -> regex.Pattern[str] | None:
    marks, pattern = source.get(literal_key), source.get(pattern_key)
    if marks is not None:
        marks = [marks] if isinstance(marks, str) else marks
        if not isinstance(marks, list) or not all(mark and isinstance(mark, str) for mark in marks):
            raise _broken(f"{literal_key} of {where!r} must be text or a list of texts")
        literals += marks
        pattern = "|".join(regex.escape(mark) for mark in sorted(marks, key=len, reverse=True))
    if pattern is None:
        return None
    if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN:
        raise _broken(f"{pattern_key} of {where!r} must be a regular expression")
    literals.append(pattern.replace("\\", ""))
    try:
        return regex.compile(pattern, regex.DOTALL)
    except regex.error as error:
        raise _broken(f"{pattern_key} of {where!r}: {error}") from error


def _broken(what: str) -> ModelFileError:
    return ModelFileError(
        f"The checkpoint's response_template cannot be followed: {what}. Name the model's format with "
        "--tool-call-parser and --reasoning-parser instead."
    )


class RegionReader:
    """Reads an answer region by region."""

    def __init__(self, regions: Regions, prompt: str, *, parses_calls: bool) -> None:
        self._regions = regions
        self._prompt = prompt
        self._parses_calls = parses_calls
        self._current = regions.outside
        self._captures: dict[str, str] = {}
        self._body: list[str] = []
        self._body_length = 0

    def __call__(self, scanner: Scanner, output: Output) -> Reading[None]:
        self._read_prompt()
        while True:
            text, match, region = self._piece(scanner)
            self._add(text, output)
            if match is not None:
                self._close(output)
                self._current = region
                self._captures = {key: value for key, value in match.groupdict().items() if value is not None}
            elif scanner.is_over:
                self._close(output)
                return
            else:
                yield

    def _read_prompt(self) -> None:
        """The prompt's end may have opened a region already."""
        anchor = self._regions.anchor
        found = None if anchor is None else list(anchor.finditer(self._prompt, timeout=PATTERN_TIMEOUT_S))
        if not found:
            return
        scanner = Scanner()
        scanner.feed(self._prompt[found[-1].end() :])
        scanner.finish()
        while True:
            _, match, region = self._piece(scanner)
            if match is None:
                return
            self._current = region

    def _piece(self, scanner: Scanner) -> tuple[str, regex.Match[str] | None, Region | None]:
        """Text up to the next mark, the mark, and the region behind it."""
        outside = self._regions.outside
        watched: list[tuple[regex.Pattern[str], Region | None]] = []
        if self._current is not None and self._current is not outside:
            if self._current.closes is not None:
                watched.append((self._current.closes, outside))
        else:
            watched += [(region.opens, region) for region in self._regions.fields if region.opens is not None]
            if outside is not None and outside.closes is not None:
                watched.append((outside.closes, outside))
        best: regex.Match[str] | None = None
        behind: Region | None = None
        held = scanner.end
        for pattern, region in watched:
            match = _search(pattern, scanner)
            if match is None or match.start() == match.end():
                continue
            is_pending = not scanner.is_over and (match.partial or match.end() == scanner.end)
            if is_pending and scanner.end - match.start() <= MAX_HELD:
                held = min(held, match.start())
            elif not match.partial and (best is None or match.start() < best.start()):
                best, behind = match, region
        if best is None or best.start() >= held:
            return scanner.take(held), None, None
        text = scanner.take(best.start())
        scanner.take(best.end())
        return text, best, behind

    def _add(self, text: str, output: Output) -> None:
        region = self._current
        if not text:
            return
        if region is None or region.name == "content":
            output.content(text)
        elif region.name in _REASONING:
            output.reasoning(text)
        elif region.name == "tool_calls" and self._parses_calls and self._body_length <= MAX_BODY:
            self._body.append(text)
            self._body_length += len(text)
        else:
            output.content(self._held_body() + text)

    def _close(self, output: Output) -> None:
        body = self._held_body()
        region = self._current
        calls = None
        if region is not None and region.name == "tool_calls" and self._parses_calls:
            calls = calls_in(body, region.rule, self._captures)
        if calls is None:
            if body:
                output.content(body)
            output.marker()
            return
        for name, arguments in calls:
            output.call_begins(name)
            output.arguments(arguments)
            output.call_ends(is_complete=True)

    def _held_body(self) -> str:
        body = "".join(self._body)
        self._body, self._body_length = [], 0
        return body


def _search(pattern: regex.Pattern[str], scanner: Scanner) -> regex.Match[str] | None:
    """A match or, while text comes, the beginning of one. A pattern that takes too long finds nothing."""
    try:
        return pattern.search(
            scanner.text,
            scanner.position,
            scanner.end,
            partial=not scanner.is_over,
            timeout=PATTERN_TIMEOUT_S,
        )
    except TimeoutError:
        return None
