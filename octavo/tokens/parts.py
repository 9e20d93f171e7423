"""What the two builders, from files and from GGUF, hand to `Tokenizer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as BackendTokenizer


@dataclass(frozen=True, kw_only=True)
class TokenizerParts:
    tokenizer: BackendTokenizer
    bos_token_id: int | None
    eos_token_ids: list[int]
    special_tokens: dict[str, str]
    """bos_token, eos_token, unk_token ... as templates see them."""
    chat_templates: dict[str, str]
    """By name; the usual one is called "default"."""
    vocab_size: int
    """One more than the highest id."""
    response_template: dict[str, Any] | None = None
    """How answers are written, in transformers' words."""
