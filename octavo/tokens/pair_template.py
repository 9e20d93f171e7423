"""A query and a document through a chat template: how rerankers that are decoders want to be asked.

Such a template is made for the roles `query` and `document`, and perhaps `system` for what is to be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from octavo.base.errors import ErrorCode, RequestError
from octavo.tokens.chat_template import words_of
from octavo.tokens.tokenizer import Tokenizer

ROLES = ("query", "document")
Side = Literal["left", "right"]


class Encoded(NamedTuple):
    """One input."""

    token_ids: list[int]
    second_from: int | None = None
    """Where the second text of a pair begins, if the tokenizer tells the two apart."""


class PairTemplate:
    """Special tokens that are written out in a text are text: no document can end its turn."""

    def __init__(self, tokenizer: Tokenizer, instruction: str) -> None:
        """instruction: for the role `system`; empty: the template's own."""
        self._tokenizer = tokenizer
        self._instruction = instruction

    def encode(
        self, pairs: Sequence[tuple[str, str]], limit: int, keep: int | None, side: Side
    ) -> list[Encoded]:
        """keep: documents give tokens until the whole has so many. None: what surely has more than `limit` is
        refused before it is tokenized.
        """
        most = self._tokenizer.max_chars_for(limit if keep is None else keep + 1)
        for text in (text for pair in pairs for text in pair):
            if len(text) > most and keep is None:
                raise too_long(len(text), limit, most)
        if keep is None:
            return [Encoded(self._write(*pair)) for pair in pairs]
        return [self._within(query, _cut(document, most, side), keep, side) for query, document in pairs]

    def _within(self, query: str, document: str, keep: int, side: Side) -> Encoded:
        token_ids = self._write(query, document)
        while len(token_ids) > keep:
            excess = len(token_ids) - keep
            places = self._tokenizer.backend.encode(document, add_special_tokens=False).offsets
            if excess >= len(places):
                raise RequestError(
                    f"truncate_prompt_tokens is {keep}: the query and what the chat template adds leave no "
                    "room for the document. Raise it, or shorten the query.",
                    param="truncate_prompt_tokens",
                )
            # Where the first token that goes begins, or the last one ends; tokens may be of no width.
            if side == "right":
                document = document[: min(places[-excess][0], len(document) - 1)]
            else:
                document = document[max(places[excess - 1][1], 1) :]
            token_ids = self._write(query, document)
        return Encoded(token_ids)

    def _write(self, query: str, document: str) -> list[int]:
        asked = [("system", self._instruction)] if self._instruction else []
        messages = [*asked, *zip(ROLES, (query, document), strict=True)]
        return self._tokenizer.encode_chat([{"role": role, "content": text} for role, text in messages])


def pair_template(tokenizer: Tokenizer, instruction: str = "") -> PairTemplate | None:
    """None if the chat template is not made for pairs, or there is none."""
    template = tokenizer.chat_template
    if template is None or not words_of(template).issuperset(ROLES):
        return None
    return PairTemplate(tokenizer, instruction)


def too_long(num_chars: int, limit: int, most: int) -> RequestError:
    return RequestError(
        f"The input has {num_chars} characters, more than {limit} tokens can hold ({most} at most). "
        "Shorten it, or set truncate_prompt_tokens to -1 to have it cut.",
        code=ErrorCode.CONTEXT_LENGTH,
        param="input",
    )


def _cut(text: str, most: int, side: Side) -> str:
    return text[:most] if side == "right" else text[-most:]
