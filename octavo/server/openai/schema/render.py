"""/v1/chat/completions/render and /v1/completions/render: what would have run."""

from __future__ import annotations

from typing import Any

import msgspec


class RenderedPrompt(msgspec.Struct):
    """One prompt as the model reads it."""

    text: str | None
    """All of it, special tokens written out; null where the server runs without a tokenizer, or the prompt
    is not tokens but prompt_embeds."""
    token_ids: list[int]
    num_tokens: int
    max_tokens: int
    """Most tokens that the answer could have."""


class RenderReply(msgspec.Struct, kw_only=True):
    """What a request becomes. Nothing was generated."""

    object: str = "rendered_request"
    model: str
    prompts: list[RenderedPrompt]
    sampling_params: dict[str, Any]
    """Values that are not the neutral ones, with the checkpoint's defaults filled in."""
