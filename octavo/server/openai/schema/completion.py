"""/v1/completions: the body, the reply, a chunk of its stream."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import WithJsonSchema

from octavo.server.openai.schema.generation import GenerationBody, PromptLogprobs, Strings, Usage
from octavo.server.openai.schema.timings import Timings

PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    ]
}


class CompletionBody(GenerationBody):
    """Continue one or more prompts."""

    prompt: Annotated[Any, WithJsonSchema(PROMPT_SCHEMA)] = None
    # Checked by render/completion.py: lists may be long.
    prompt_embeds: Strings = None
    """Instead of prompt, where the server takes them: safetensors files of vectors, in base64."""
    logprobs: int | None = None
    best_of: int | None = None


class CompletionLogprobs(msgspec.Struct):
    """Four parallel lists, one entry per token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    """One continuation, or (streaming) a part of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_logprobs: PromptLogprobs | UnsetType = UNSET
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class CompletionReply(msgspec.Struct, kw_only=True):
    """The reply, and each chunk of a stream (where usage comes in the last one only)."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | UnsetType = UNSET
    system_fingerprint: str
    timings: Timings | UnsetType = UNSET
