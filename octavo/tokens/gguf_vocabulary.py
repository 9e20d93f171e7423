"""Vocabulary: a checked view of the tokenizer keys of a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from octavo.base.errors import ModelFileError

MAX_VOCABULARY = 4_000_000


class TokenType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Vocabulary:
    """Raises ModelFileError for values that cannot be, here or where they are asked for."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.model: str = self._get("model", str, "")
        self.pre: str = self._get("pre", str, "")
        self.architecture = str(metadata.get("general.architecture", ""))
        self.tokens = self._strings("tokens")
        if not self.tokens:
            raise ModelFileError("The GGUF file has no tokens (tokenizer.ggml.tokens); it cannot serve text.")
        if len(self.tokens) > MAX_VOCABULARY:
            raise ModelFileError(
                f"The GGUF file lists {len(self.tokens)} tokens; at most {MAX_VOCABULARY} are allowed."
            )
        self.types: list[int] = self._get("token_type", list, [])
        if self.types and len(self.types) != len(self.tokens):
            raise ModelFileError(
                f"The GGUF file lists {len(self.tokens)} tokens but {len(self.types)} token types."
            )
        self.scores: list[float] = self._get("scores", list, [])

    def _get(self, key: str, kind: type, default: Any) -> Any:
        value = self._metadata.get(f"tokenizer.ggml.{key}", default)
        if not isinstance(value, kind):
            raise ModelFileError(
                f"tokenizer.ggml.{key} of the GGUF file is a {type(value).__name__}; "
                f"it has to be a {kind.__name__}. Get the file again or convert the model anew."
            )
        return value

    def _strings(self, key: str) -> list[str]:
        values: list[str] = self._get(key, list, [])
        if not all(isinstance(value, str) for value in values):
            raise ModelFileError(f"tokenizer.ggml.{key} of the GGUF file holds something that is not text.")
        return values

    def flag(self, key: str, default: bool) -> bool:
        return bool(self._get(key, bool, default))

    @property
    def is_phi3(self) -> bool:
        """Its special tokens take the white space behind them, which no key of the file says."""
        return self.architecture == "phi3" and self.model == "llama"

    @property
    def spaced_mask(self) -> int | None:
        """XLM-RoBERTa's mask takes the white space before it, which no key of the file says."""
        return self.token_id("mask_token_id") if self.model == "t5" else None

    def type_of(self, token_id: int) -> int:
        return self.types[token_id] if self.types else TokenType.NORMAL

    def token_id(self, key: str) -> int | None:
        """A special token's id, None when the file names none."""
        value = self._metadata.get(f"tokenizer.ggml.{key}")
        if value is None:
            return None
        if not isinstance(value, int) or not 0 <= value < len(self.tokens):
            raise ModelFileError(
                f"tokenizer.ggml.{key} is {value!r}, outside the vocabulary of {len(self.tokens)} tokens."
            )
        return value

    def first_token_id(self, *keys: str, token: str) -> int | None:
        """Of the first key that the file has; else of the token itself, if there is one."""
        ids = (self.token_id(key) for key in keys)
        found = next((token_id for token_id in ids if token_id is not None), None)
        return self.tokens.index(token) if found is None and token in self.tokens else found

    def charsmap(self) -> bytes:
        """How SentencePiece rewrites characters before it cuts text; empty where it leaves them alone."""
        values: list[int] = self._get("precompiled_charsmap", list, [])
        # Bytes are numbers from 0 on in some files and signed ones in others.
        if not all(type(value) is int and -128 <= value < 256 for value in values):
            raise ModelFileError("tokenizer.ggml.precompiled_charsmap of the GGUF file does not hold bytes.")
        return bytes(value & 255 for value in values)

    def merges(self) -> list[tuple[str, str]] | None:
        lines = self._strings("merges")
        if not lines:
            return None
        # A piece may itself start with a space in no vocabulary, so the first space inside divides the two.
        pairs = [tuple(line.split(" ", 1)) for line in lines]
        if any(len(pair) != 2 for pair in pairs):
            raise ModelFileError("tokenizer.ggml.merges of the GGUF file has a line that is not two pieces.")
        return pairs  # type: ignore[return-value]

    def chat_templates(self) -> dict[str, str]:
        """The default template and named ones (tokenizer.chat_template and tokenizer.chat_template.NAME)."""
        prefix = "tokenizer.chat_template"
        texts = {key: value for key, value in self._metadata.items() if isinstance(value, str)}
        named = {
            key.removeprefix(prefix + "."): text
            for key, text in texts.items()
            if key.startswith(prefix + ".")
        }
        return {**named, "default": texts[prefix]} if prefix in texts else named
