"""NoTokenizer: stands where a tokenizer was not loaded (`skip_tokenizer_init`). Ids go in and come out.

Whatever would need a vocabulary raises RequestError and says what to send instead.
"""

# ruff: noqa: ARG002  (the interface is the Tokenizer's)

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from octavo.base.errors import RequestError
from octavo.tokens.chat_template import ChatOptions
from octavo.tokens.pieces import Pieces
from octavo.tokens.tokenizer import ChatPrompt, Tokenizer


class NoTokenizer(Tokenizer):
    """Knows the number of tokens and nothing of what they mean."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.bos_token_id = None
        self.eos_token_ids = []
        self.special_tokens = {}
        self.strips_first_space = False

    @property
    def has_text(self) -> bool:
        return False

    @property
    def has_token_bytes(self) -> bool:
        return False

    @property
    def chat_template(self) -> str | None:
        return None

    @property
    def response_template(self) -> dict[str, Any] | None:
        return None

    def template_for(self, wish: str | None, has_tools: bool) -> str | None:
        return None

    def special_ids_in(self, texts: Sequence[str]) -> list[int]:
        return []

    def pieces(self, skip_special_tokens: bool, shown: frozenset[int] = frozenset()) -> Pieces:
        return Pieces(self.token_bytes, hides=None)

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        raise _no_text("A text cannot be tokenized; send token ids.", "prompt")

    def encode_plain(self, text: str) -> list[int]:
        raise _no_text("A text cannot be tokenized; send token ids.", "prompt")

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        raise _no_text("Token ids cannot be turned into text.", "tokens")

    def token_bytes(self, token_id: int) -> bytes:
        return b""

    def token_text(self, token_id: int) -> str:
        """What log-probabilities show: tokens have to stay distinct."""
        return f"token_id:{token_id}"

    def is_special(self, token_id: int) -> bool:
        return False

    def max_chars_for(self, max_tokens: int) -> int:
        return sys.maxsize

    def prepare_chat(self, options: ChatOptions, *, trust_content: bool = False) -> ChatPrompt:
        raise _no_text("A chat cannot be rendered; send a prompt of token ids.", "messages")


def _no_text(what: str, param: str) -> RequestError:
    return RequestError(f"This engine runs without a tokenizer (skip_tokenizer_init). {what}", param=param)
