"""GrammarCompiler: a wish becomes its canonical grammar, or a RequestError that names the place.

May take long on hostile wishes: a server lets helper processes do it (`desk`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from llguidance import LLMatcher

from octavo.base.errors import ErrorCode, RequestError
from octavo.grammar.draft import Draft, quoted
from octavo.grammar.json_schema import ANY_OBJECT, ready_schema
from octavo.grammar.lark_text import as_lark
from octavo.grammar.limits import PROBE_TOKENS, parser_limits
from octavo.grammar.locate import locate
from octavo.grammar.schema_walk import place_name
from octavo.grammar.structural_tag import structural_tag_start
from octavo.grammar.vocabulary import Vocabulary, ll_tokenizer
from octavo.messages.structured import StructuredOutputsParams

MAX_SAID_CHARS = 300


class GrammarCompiler:
    """Holds the vocabulary in llguidance's form."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._tokenizer = ll_tokenizer(vocabulary)
        self._starts: dict[str, Callable[[Draft, StructuredOutputsParams, str], str]] = {
            "json": lambda draft, wish, param: draft.schema(ready_schema(wish.json, wish, param), param),
            "json_object": lambda draft, wish, param: draft.schema(
                ready_schema(ANY_OBJECT, wish, param), param
            ),
            "regex": lambda draft, wish, param: draft.regex(wish.regex or "", param),
            "choice": _choice_start,
            "grammar": lambda draft, wish, param: draft.lark(as_lark(wish.grammar or "", param), param),
            "structural_tag": structural_tag_start,
        }

    def compile(self, wish: StructuredOutputsParams) -> str:
        """The canonical grammar. Raises RequestError."""
        wish.check()
        param = f"structured_outputs.{wish.kind}"
        draft = Draft(special=self._vocabulary.special)
        canonical = draft.canonical(self._starts[wish.kind](draft, wish, param))
        matcher = LLMatcher(self._tokenizer, canonical, log_level=0, limits=parser_limits())
        if matcher.is_error():
            raise self._refusal(draft, param, matcher.get_error())
        self._probe(matcher, param)
        return canonical

    def _refusal(self, draft: Draft, param: str, said: str) -> RequestError:
        for place, part in draft.origins.items():
            alone = self._complaint(part)
            if alone is None:
                continue
            if "json_schema" not in part:
                return _refused(place, alone)
            path, said = locate(part["json_schema"], lambda schema: self._complaint({"json_schema": schema}))
            return _refused(place_name(place, path), said)
        return _refused(param, said)

    def _complaint(self, part: dict[str, Any]) -> str | None:
        """What llguidance says of a part alone."""
        grammar = json.dumps({"grammars": [part]})
        is_error, messages = LLMatcher.validate_grammar_with_warnings(
            grammar, self._tokenizer, limits=parser_limits()
        )
        return messages[0] if is_error else None

    def _probe(self, matcher: LLMatcher, param: str) -> None:
        """Follow the grammar a little: some are only found too wide when they are used."""
        chance = random.Random(0)
        for _ in range(PROBE_TOKENS):
            mask = matcher.compute_bitmask()
            if matcher.is_error():
                raise _refused(param, matcher.get_error())
            token = _some_token(mask, chance)
            if token is None:
                raise _refused(param, "no token of this model's vocabulary fits it")
            if matcher.is_stopped() or token in self._vocabulary.eos_token_ids:
                return
            matcher.consume_token(token)


def _choice_start(draft: Draft, wish: StructuredOutputsParams, param: str) -> str:
    # One terminal: thousands of choices are one automaton.
    choices = " | ".join(quoted(text) for text in wish.choice or [])
    return draft.lark(f"start: CHOICE\nCHOICE: {choices}", param)


def _refused(param: str, said: str) -> RequestError:
    lines = [line.strip() for line in said.splitlines() if line.strip(" ^|") and "<non-verbose/>" not in line]
    shown = " ".join(lines)[:MAX_SAID_CHARS].rstrip(".")
    return RequestError(
        f"{param} cannot be enforced: {shown}. Change or remove it.",
        code=ErrorCode.UNSUPPORTED_VALUE,
        param=param,
    )


def _some_token(mask: bytes, chance: random.Random) -> int | None:
    """A token whose bit is set, the first one behind a random place."""
    start = chance.randrange(len(mask))
    for offset in range(len(mask)):
        index = (start + offset) % len(mask)
        if mask[index]:
            return index * 8 + next(bit for bit in range(8) if mask[index] >> bit & 1)
    return None
