"""How long a request took, where its caller asked for it."""

from __future__ import annotations

import msgspec


class Timings(msgspec.Struct, kw_only=True):
    """llama.cpp's names, in milliseconds, and three of ours. What cannot be known is null."""

    prompt_n: int
    """Tokens of the prompt that were computed, those from the cache left out."""
    cache_n: int
    """Tokens of the prompt that came from the cache."""
    prompt_ms: float | None
    """From the first step to the first token."""
    prompt_per_token_ms: float | None
    prompt_per_second: float | None
    predicted_n: int
    """Tokens of all answers."""
    predicted_ms: float | None
    """From the first token to the last."""
    predicted_per_token_ms: float | None
    predicted_per_second: float | None
    queue_ms: float | None
    """From arrival to the first step."""
    ttft_ms: float | None
    """From arrival to the first token."""
    total_ms: float | None
    """From arrival to the end."""
