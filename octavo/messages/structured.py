"""StructuredOutputsParams: the form an answer must have. Names and meanings are vLLM's."""

from __future__ import annotations

from typing import Any

import msgspec

from octavo.base.errors import RequestError

KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
"""Fields of which exactly one says the form."""

MAX_TEXT_CHARS = 512 * 1024
"""Longest schema, regex or grammar."""
MAX_CHOICES = 20_000
MAX_MARKER_TOKENS = 64


class StructuredOutputsParams(
    msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, frozen=True
):
    """The form of an answer: exactly one of json, regex, choice, grammar, json_object, structural_tag.

    json and structural_tag are objects or their JSON text. grammar is Lark or GBNF. The other fields
    apply to JSON only.
    """

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | dict[str, Any] | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    """Objects take no property that their schema does not name, unless it says otherwise itself."""
    whitespace_pattern: str | None = None
    """Regular expression of what may stand between the parts of JSON."""
    canonical: str | None = None
    """Filled in by the engine: the same wish as llguidance reads it. The worker reads only this."""
    begin_after: list[int] | None = None
    """Filled in by the engine: the form begins behind these tokens of the answer (the end of reasoning)."""

    @property
    def kind(self) -> str:
        """Which field says the form. Only after `check`."""
        return next(name for name in KINDS if getattr(self, name) not in (None, False))

    def check(self) -> None:
        """Raise RequestError naming the field unless the wish is well-formed. Schemas are not looked at."""
        if self.canonical is None:
            self._check_kind()
        if self.begin_after is not None and not 0 < len(self.begin_after) <= MAX_MARKER_TOKENS:
            raise _wrong("begin_after", f"must hold 1 to {MAX_MARKER_TOKENS} token ids")
        pattern = self.whitespace_pattern
        if pattern is not None and (not isinstance(pattern, str) or not 0 < len(pattern) <= 256):
            raise _wrong("whitespace_pattern", "must be a regular expression of 1 to 256 characters")
        if pattern is not None and self.disable_any_whitespace:
            raise _wrong("whitespace_pattern", "contradicts disable_any_whitespace; give one of them")

    def _check_kind(self) -> None:
        given = [name for name in KINDS if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            said = "none is given" if not given else f"{' and '.join(given)} are given"
            raise RequestError(
                f"structured_outputs takes exactly one of {', '.join(KINDS)}; {said}.",
                param="structured_outputs",
            )
        name, value = given[0], getattr(self, given[0])
        if name == "choice":
            self._check_choice()
        elif name == "json_object":
            if value is not True:
                raise _wrong(name, "must be true or false")
        elif not isinstance(value, str | dict) or (isinstance(value, dict) and name in ("regex", "grammar")):
            raise _wrong(name, "must be a string" if name in ("regex", "grammar") else "must be an object")
        elif isinstance(value, str) and not 0 < len(value) <= MAX_TEXT_CHARS:
            raise _wrong(name, f"must have 1 to {MAX_TEXT_CHARS} characters")

    def _check_choice(self) -> None:
        choice = self.choice
        if not isinstance(choice, list) or not 0 < len(choice) <= MAX_CHOICES:
            raise _wrong("choice", f"must be a list of 1 to {MAX_CHOICES} strings")
        for index, text in enumerate(choice):
            if not isinstance(text, str) or not text:
                raise _wrong(f"choice[{index}]", "must be a string that is not empty")
        if sum(map(len, choice)) > MAX_TEXT_CHARS:
            raise _wrong("choice", f"must have at most {MAX_TEXT_CHARS} characters in all")


def _wrong(field: str, what: str) -> RequestError:
    param = f"structured_outputs.{field}"
    return RequestError(f"{param} {what}.", param=param)
