"""What rendering makes of a body: prompts and parameters, ready for the engine."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from octavo.messages.params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt as tokens, and as text where the caller sent text."""

    token_ids: list[int]
    text: str | None = None
    max_tokens: int | None = None
    """Instead of the parameters' own, where a default did not fit behind this prompt."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One body: every prompt is answered `params.n` times."""

    prompts: list[Prompt]
    params: SamplingParams
    max_tokens: int | None
    """What the caller asked for; None if nothing."""
    priority: int = 0
    cache_salt: str | None = None

    def params_for(self, prompt: Prompt) -> SamplingParams:
        """The parameters of one prompt."""
        if prompt.max_tokens is None:
            return self.params
        return msgspec.structs.replace(self.params, max_tokens=prompt.max_tokens)
