"""Structural tags: text with parts of a fixed form in it, in OpenAI's and in vLLM's older words.

A format is a small language: constants, schemas, regular expressions, sequences, alternatives, and tags
that text may run into. Every format becomes a Lark expression.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from octavo.base.errors import ErrorCode, RequestError
from octavo.grammar.draft import Draft
from octavo.grammar.json_schema import read_object, ready_schema
from octavo.grammar.lark_text import as_lark
from octavo.messages.structured import StructuredOutputsParams

MAX_FORMATS = 10_000
QUIET = '""'
"""Nothing at all, as a Lark expression."""


def structural_tag_start(draft: Draft, wish: StructuredOutputsParams, param: str) -> str:
    """The start expression of a structural tag."""
    tag = read_object(wish.structural_tag, param)
    formats = _Formats(draft, wish)
    if "structures" in tag or "triggers" in tag:
        return formats.legacy(tag, param)
    if "format" not in tag:
        raise _wrong(param, "must have a format (or structures and triggers)")
    return formats.expression(tag["format"], f"{param}.format")


class _Formats:
    """One reader for each type of format."""

    def __init__(self, draft: Draft, wish: StructuredOutputsParams) -> None:
        self._draft = draft
        self._wish = wish
        self._num_formats = 0
        self._readers: dict[str, Callable[[dict[str, Any], str], str]] = {
            "const_string": self._const_string,
            "json_schema": self._json_schema,
            "regex": self._regex,
            "grammar": self._grammar,
            "any_text": self._any_text,
            "sequence": self._sequence,
            "or": self._or,
            "tag": self._tag,
            "triggered_tags": self._triggered_tags,
            "tags_with_separator": self._tags_with_separator,
        }

    def expression(self, form: Any, param: str) -> str:
        self._num_formats += 1
        if self._num_formats > MAX_FORMATS:
            raise _wrong(param, f"is the last of more than {MAX_FORMATS} formats")
        if not isinstance(form, dict):
            raise _wrong(param, "must be an object")
        kind = form.get("type")
        reader = self._readers.get(kind) if isinstance(kind, str) else None
        if reader is None:
            raise RequestError(
                f"{param}.type must be one of {', '.join(self._readers)}.",
                code=ErrorCode.UNSUPPORTED_VALUE,
                param=f"{param}.type",
            )
        return reader(form, param)

    def legacy(self, tag: dict[str, Any], param: str) -> str:
        tags = [
            {
                "type": "tag",
                "begin": _string(structure, "begin", place),
                "content": {"type": "json_schema", "json_schema": structure.get("schema", {})},
                "end": _string(structure, "end", place),
            }
            for structure, place in _objects(tag, "structures", param)
        ]
        form = {"structures": tags, "triggers": tag.get("triggers")}
        return self._triggered_tags(form, param, name="structures", schema_place="schema")

    def _const_string(self, form: dict[str, Any], param: str) -> str:
        return self._draft.text(_string(form, "value", param)) or QUIET

    def _json_schema(self, form: dict[str, Any], param: str, place: str = "json_schema") -> str:
        if form.get("style", "json") != "json":
            raise RequestError(
                f"{param}.style must be json.", code=ErrorCode.UNSUPPORTED_VALUE, param=f"{param}.style"
            )
        where = f"{param}.{place}"
        return self._draft.schema(ready_schema(form.get("json_schema"), self._wish, where), where)

    def _regex(self, form: dict[str, Any], param: str) -> str:
        return self._draft.regex(_string(form, "pattern", param), f"{param}.pattern")

    def _grammar(self, form: dict[str, Any], param: str) -> str:
        where = f"{param}.grammar"
        return self._draft.lark(as_lark(_string(form, "grammar", param), where), where)

    def _any_text(self, form: dict[str, Any], param: str) -> str:
        _refuse_excludes(form, param)
        return "TEXT"

    def _sequence(self, form: dict[str, Any], param: str) -> str:
        elements = _objects(form, "elements", param)
        return " ".join(self._element(elements, index) for index in range(len(elements))) or QUIET

    def _element(self, elements: list[tuple[dict[str, Any], str]], index: int) -> str:
        form, param = elements[index]
        if form.get("type") == "any_text" and index + 1 < len(elements):
            raise RequestError(
                f"{param}: any_text must come last, or be the content of a tag with an end.",
                code=ErrorCode.UNSUPPORTED_VALUE,
                param=param,
            )
        return self.expression(form, param)

    def _or(self, form: dict[str, Any], param: str) -> str:
        return _either([self.expression(inner, where) for inner, where in _objects(form, "elements", param)])

    def _tag(self, form: dict[str, Any], param: str) -> str:
        return f"{self._draft.text(_string(form, 'begin', param))} {self._behind_begin(form, param)}"

    def _behind_begin(self, form: dict[str, Any], param: str, schema_place: str = "") -> str:
        """Content and end of a tag."""
        ends = form.get("end")
        ends = [ends] if isinstance(ends, str) else ends
        if not isinstance(ends, list) or not ends or not all(isinstance(end, str) for end in ends):
            raise _wrong(f"{param}.end", "must be a string or a list of strings")
        content = form.get("content")
        if isinstance(content, dict) and content.get("type") == "any_text":
            _refuse_excludes(content, f"{param}.content")
            return self._draft.rule(_either([self._text_until(end) for end in ends]))
        if schema_place:
            assert isinstance(content, dict), "made by legacy()"
            body = self._json_schema(content, param, schema_place)
        else:
            body = self.expression(content, f"{param}.content")
        return f"{body} {_either([self._draft.text(end) or QUIET for end in ends])}"

    def _text_until(self, mark: str) -> str:
        """Any text, and the first place where `mark` stands."""
        if not mark:
            return "TEXT"
        head = self._draft.first_piece(mark)
        if not head:
            return f"TEXT {self._draft.text(mark)}"
        met = self._draft.rule(f"TEXT {self._draft.text(head)}", is_lazy=True)
        return f"{met} {self._draft.text(mark[len(head) :])}"

    def _triggered_tags(
        self, form: dict[str, Any], param: str, name: str = "tags", schema_place: str = ""
    ) -> str:
        """Text that, wherever it says a trigger, goes on as one of the tags that begin with it."""
        _refuse_excludes(form, param)
        triggers = form.get("triggers")
        is_list = isinstance(triggers, list) and bool(triggers)
        if not is_list or not all(isinstance(trigger, str) and trigger for trigger in triggers or ()):
            raise _wrong(f"{param}.triggers", "must be a list of strings that are not empty")
        groups: dict[str, list[str]] = {trigger: [] for trigger in triggers or ()}
        whole = []
        for tag, where in _objects(form, name, param):
            begin = _string(tag, "begin", where)
            trigger = next((trigger for trigger in groups if begin.startswith(trigger)), None)
            if trigger is None:
                raise _wrong(f"{where}.begin", "must begin with one of the triggers")
            rest = self._draft.rule(self._behind_begin(tag, where, schema_place))
            groups[trigger].append(f"{self._draft.text(begin[len(trigger) :])} {rest}")
            whole.append(f"{self._draft.text(begin)} {rest}")
        calls = [f"{self._text_until(name)} {_either(rests)}" for name, rests in groups.items() if rests]
        met = self._draft.rule(_either(calls))
        if form.get("at_least_one"):
            first = self._draft.rule(_either(whole))
            return first if form.get("stop_after_first") else f"{first} {met}* TEXT"
        return f"({met} | TEXT)" if form.get("stop_after_first") else f"{met}* TEXT"

    def _tags_with_separator(self, form: dict[str, Any], param: str) -> str:
        tags = [self._tag(tag, where) for tag, where in _objects(form, "tags", param)]
        one = self._draft.rule(_either(tags))
        separator = self._draft.text(_string(form, "separator", param))
        more = "" if form.get("stop_after_first") else f" ({separator} {one})*"
        return f"{one}{more}" if form.get("at_least_one") else f"({one}{more})?"


def _either(expressions: list[str]) -> str:
    return expressions[0] if len(expressions) == 1 else f"({' | '.join(expressions)})"


def _objects(form: dict[str, Any], name: str, param: str) -> list[tuple[dict[str, Any], str]]:
    """The objects of a list, with the name of each."""
    found = form.get(name)
    if not isinstance(found, list) or not found or not all(isinstance(item, dict) for item in found):
        raise _wrong(f"{param}.{name}", "must be a list of objects, at least one")
    return [(item, f"{param}.{name}[{index}]") for index, item in enumerate(found)]


def _string(form: dict[str, Any], name: str, param: str) -> str:
    value = form.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{param}.{name}", "must be a string")
    return value


def _refuse_excludes(form: dict[str, Any], param: str) -> None:
    if form.get("excludes"):
        raise RequestError(
            f"{param}.excludes is not supported; leave it out.",
            code=ErrorCode.UNSUPPORTED_VALUE,
            param=f"{param}.excludes",
        )


def _wrong(param: str, what: str) -> RequestError:
    return RequestError(f"{param} {what}.", param=param)
