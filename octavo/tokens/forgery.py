"""Keeps special tokens that users write in their text from being obeyed.

Before a chat is rendered, every special token inside user-supplied strings is replaced by a mark that
nobody can guess. After rendering, stretches that hold marks are encoded as plain text and all others as
usual, so a chat without such text has exactly the ids of the whole rendered prompt.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import AddedToken
from tokenizers import Tokenizer as BackendTokenizer

from octavo.base.errors import RequestError
from octavo.tokens.library_errors import as_request_errors

_PRIVATE_START = 0xF0000
_PRIVATE_SIZE = 0xFFFE
_INDEX_START = 0x100000
_EDGE = _INDEX_START + 0xFFFD
_NONCE_LENGTH = 6
_UNBOUNDED_CHARS = 256


def _nonce() -> str:
    """Characters without case, meaning or normal form: templates pass them through untouched."""
    return "".join(chr(_PRIVATE_START + secrets.randbelow(_PRIVATE_SIZE)) for _ in range(_NONCE_LENGTH))


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of a rendered prompt and how to encode it."""

    text: str
    is_plain: bool
    follows_special: bool


class SpecialTokens:
    """The special tokens of one vocabulary, and an encoder that does not know them."""

    def __init__(self, backend: BackendTokenizer) -> None:
        self._backend = backend
        added = backend.get_added_tokens_decoder()
        self.tokens = [token for token in added.values() if token.special and token.content]
        self.ids = {token.content: token_id for token_id, token in added.items() if token.special}
        self.contents = [token.content for token in self.tokens]
        self._by_content = {token.content: index for index, token in enumerate(self.tokens)}
        starts = {content[0] for content in self.contents}
        self._starts = re.compile("[" + "".join(map(re.escape, sorted(starts))) + "]" if starts else r"(?!)")
        self._lengths = sorted({len(content) for content in self.contents}, reverse=True)
        self._prefixes = {content[:cut] for content in self.contents for cut in range(1, len(content))}
        self._longest = max(map(len, self.contents), default=0)
        self._anchor = _nonce()

    @cached_property
    def longest_token_chars(self) -> int:
        """Most characters one token can stand for, with room for normalisation that shortens text."""
        longest = max(map(len, self._backend.get_vocab(with_added_tokens=True)), default=1)
        return longest if self._backend.normalizer is None else max(4 * longest, _UNBOUNDED_CHARS)

    @cached_property
    def _plain(self) -> BackendTokenizer:
        """Shares the model; takes special tokens for text and one secret anchor for a token."""
        plain = BackendTokenizer(self._backend.model)
        if self._backend.normalizer is not None:
            plain.normalizer = self._backend.normalizer
        if self._backend.pre_tokenizer is not None:
            plain.pre_tokenizer = self._backend.pre_tokenizer
        added = self._backend.get_added_tokens_decoder()
        plain.add_tokens([added[token_id] for token_id in sorted(added)])
        if plain.get_added_tokens_decoder().keys() != added.keys():
            plain = BackendTokenizer.from_str(self._backend.to_str())
        plain.add_tokens([AddedToken(self._anchor, normalized=False, special=False)])
        plain.encode_special_tokens = True
        return plain

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Where special tokens are written in `text`: leftmost first, longest first, not overlapping.

        Looks up slices instead of trying names one by one: some vocabularies have thousands.
        """
        end = 0
        for start in (match.start() for match in self._starts.finditer(text)):
            if start < end:
                continue
            for length in self._lengths:
                piece = text[start : start + length]
                if piece in self._by_content:
                    end = start + len(piece)  # At the end of the text it is shorter than asked for.
                    yield start, end
                    break

    def token_at(self, text: str, start: int, end: int) -> AddedToken:
        return self.tokens[self._by_content[text[start:end]]]

    def encode_plain(self, text: str, *, follows_special: bool) -> list[int]:
        """Return ids of ordinary text.

        follows_special: the text comes right after a special token, where some vocabularies add no
        space; the anchor stands in for that token and its id is dropped.
        """
        with as_request_errors():
            if follows_special:
                ids = self._plain.encode(self._anchor + text, add_special_tokens=False).ids[1:]
            else:
                ids = self._plain.encode(text, add_special_tokens=False).ids
        forged = set(self.ids.values()).intersection(ids)
        if not forged:
            return ids
        return self._encode_in_parts(text, follows_special)

    def _encode_in_parts(self, text: str, follows_special: bool) -> list[int]:
        """The merges themselves spell a special token; cutting it in two hinders them."""
        start, end = next(self.find(text), (0, 0))
        if end - start < 2:
            raise RequestError(
                "The text spells a special token of the model in a way that cannot be encoded as plain text. "
                "Leave it out.",
                param="messages",
            )
        middle = (start + end) // 2
        left = self.encode_plain(text[:middle], follows_special=follows_special)
        return left + self.encode_plain(text[middle:], follows_special=True)

    def guard(self, values: Iterable[Any]) -> Guard | None:
        """A guard for one chat, or None when no string in `values` needs one."""
        return Guard(self) if any(self._is_suspicious(value) for value in values) else None

    def _is_suspicious(self, value: Any) -> bool:
        if isinstance(value, str):
            return self._edge(value) is not None or next(self.find(value), None) is not None
        if isinstance(value, dict):
            return any(self._is_suspicious(item) for pair in value.items() for item in pair)
        if isinstance(value, list | tuple):
            return any(self._is_suspicious(item) for item in value)
        return False

    def _edge(self, text: str) -> int | None:
        """Where `text` ends with the beginning of a special token that the next string could complete."""
        if text.replace("_", "").isalnum():
            return None  # roles and names, which templates compare
        # Templates often trim, so white space at the end does not separate.
        end = len(text.rstrip())
        cuts = range(max(0, end - self._longest + 1), end)
        return end if any(text[cut:end] in self._prefixes for cut in cuts) else None

    def mark(self, text: str, nonce: str) -> str:
        edge = self._edge(text)
        parts, done = [], 0
        for start, end in self.find(text):
            parts += [text[done:start], nonce, chr(_INDEX_START + self._by_content[text[start:end]])]
            done = end
        if edge is None or edge < done:
            return "".join([*parts, text[done:]])
        return "".join([*parts, text[done:edge], nonce, chr(_EDGE), text[edge:]])


class Guard:
    """Marks of one rendered chat."""

    def __init__(self, special: SpecialTokens) -> None:
        self._special = special
        self._nonce = _nonce()
        self._marks = re.compile(re.escape(self._nonce) + "(.)", re.DOTALL)

    def mark(self, value: Any) -> Any:
        """Return a copy of a message, tool or document with marks instead of special tokens."""
        if isinstance(value, str):
            return self._special.mark(value, self._nonce)
        if isinstance(value, dict):
            return {self.mark(key): self.mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mark(item) for item in value]
        return value

    def restore(self, text: str) -> str:
        """Return `text` with the special tokens the users wrote."""
        return self._marks.sub(self._original, text)

    def _original(self, match: re.Match[str]) -> str:
        index = ord(match[1]) - _INDEX_START
        return self._special.contents[index] if 0 <= index < len(self._special.contents) else ""

    def pieces(self, text: str) -> Iterator[Piece]:
        """Cut at the template's own special tokens; only stretches with marks stand alone."""
        pending = 0
        for start, end in self._stretches(text):
            if self._nonce not in text[start:end]:
                continue
            if pending < start:
                yield Piece(text=text[pending:start], is_plain=False, follows_special=pending > 0)
            yield Piece(text=self.restore(text[start:end]), is_plain=True, follows_special=start > 0)
            pending = end
        if pending < len(text):
            yield Piece(text=text[pending:], is_plain=False, follows_special=pending > 0)

    def _stretches(self, text: str) -> Iterator[tuple[int, int]]:
        """Everything between the template's own special tokens."""
        begin = 0
        for start, end in self._special.find(text):
            token = self._special.token_at(text, start, end)
            if token.lstrip:
                start = max(begin, len(text[:start].rstrip()))
            if token.rstrip:
                end += len(text[end:]) - len(text[end:].lstrip())
            if start > begin:
                yield begin, start
            begin = end
        if begin < len(text):
            yield begin, len(text)
