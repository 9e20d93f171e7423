"""What a chat template writes, as text."""

from __future__ import annotations

from typing import Any

from octavo.tokens.chat_template import ChatOptions
from octavo.tokens.tokenizer import Tokenizer


def rendered(tokenizer: Tokenizer, messages: list[dict[str, Any]], **options: Any) -> str:
    return tokenizer.prepare_chat(ChatOptions(messages=messages, **options), trust_content=True).text
