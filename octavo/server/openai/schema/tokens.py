"""/tokenize and /detokenize: bodies and replies."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import Field

from octavo.server.body import Body
from octavo.server.openai.schema.chat import ChatMessage, ConversationBody


class TokenizeBody(ConversationBody):
    """Either a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] = Field(default_factory=list)
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class TokenizeReply(msgspec.Struct):
    """The tokens and how many there are."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | UnsetType = UNSET


class TokenizerInfo(msgspec.Struct, kw_only=True):
    """What the tokenizer is like."""

    vocab_size: int
    """Rows of the embedding table: ids are smaller."""
    max_model_len: int
    bos_token_id: int | None
    eos_token_ids: list[int]
    special_tokens: dict[str, str]
    """By the names that chat templates use."""
    chat_template: str | None


class DetokenizeBody(Body):
    """Token ids."""

    model: str | None = None
    tokens: list[int]


class DetokenizeReply(msgspec.Struct):
    """Their text."""

    prompt: str
