"""Draft: a grammar being put together, as one Lark text and the grammars it refers to by name."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from llguidance import LLMatcher

JsonOptions = dict[str, Any]


@dataclass(kw_only=True)
class Draft:
    """Parts come in through the methods, which return what to write in a Lark rule."""

    special: dict[str, int]
    """Names of special tokens: where text holds one, the token itself is meant."""
    rules: list[str] = field(default_factory=list)
    parts: list[dict[str, Any]] = field(default_factory=list)
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Parts as llguidance gets them, by the parameter each came from."""

    def __post_init__(self) -> None:
        names = sorted(self.special, key=len, reverse=True)
        self._special_name = re.compile("|".join(map(re.escape, names))) if names else None

    def text(self, text: str) -> str:
        """Exactly this text; special tokens written out in it are those tokens."""
        if self._special_name is None:
            return quoted(text)
        pieces, end = [], 0
        for match in self._special_name.finditer(text):
            pieces.append(quoted(text[end : match.start()]))
            pieces.append(f"<[{self.special[match[0]]}]>")
            end = match.end()
        pieces.append(quoted(text[end:]))
        return " ".join(piece for piece in pieces if piece)

    def first_piece(self, text: str) -> str:
        """The text up to its first special token: what ordinary text can run into."""
        found = None if self._special_name is None else self._special_name.search(text)
        return text if found is None else text[: found.start()]

    def schema(self, schema: dict[str, Any], param: str) -> str:
        """JSON that follows a schema, which holds its compile options."""
        return self._part({"json_schema": schema}, param)

    def regex(self, pattern: str, param: str) -> str:
        """What a regular expression matches as a whole."""
        grammar = json.loads(LLMatcher.grammar_from_regex(pattern))
        return self.lark(grammar["grammars"][0]["lark_grammar"], param)

    def lark(self, text: str, param: str) -> str:
        """A whole Lark grammar with its own `start`."""
        return self._part({"lark_grammar": text}, param)

    def rule(self, body: str, *, is_lazy: bool = False) -> str:
        """A rule of its own."""
        name = f"r{len(self.rules)}"
        self.rules.append(f"{name}{'[lazy]' if is_lazy else ''}: {body}")
        return name

    def canonical(self, start: str) -> str:
        """The finished grammar, whose answers are `start`."""
        lines = [f"start: {start}", *self.rules, r"TEXT: /(.|\n)*/"]
        return json.dumps({"grammars": [{"name": "main", "lark_grammar": "\n".join(lines)}, *self.parts]})

    def _part(self, grammar: dict[str, Any], param: str) -> str:
        name = f"g{len(self.parts)}"
        self.origins[param] = grammar
        self.parts.append({"name": name, **grammar})
        return f"@{name}"


def quoted(text: str) -> str:
    """A text as a Lark string; empty for none."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f") if text else ""
