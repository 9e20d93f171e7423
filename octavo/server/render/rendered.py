"""What rendering makes of a body: prompts and parameters, ready for the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from octavo.messages.beam import BeamSearchParams
from octavo.messages.params import SamplingParams
from octavo.messages.prompt_vectors import PromptVectors
from octavo.messages.request import PrefixPin


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt as tokens, and as text where the caller sent text."""

    token_ids: list[int]
    text: str | None = None
    max_tokens: int | None = None
    """Instead of the parameters' own, where a default did not fit behind this prompt."""
    vectors: PromptVectors | None = None
    """The prompt itself, where it is no tokens; token_ids are placeholders then."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One body: every prompt is answered `params.n` times."""

    prompts: list[Prompt]
    params: SamplingParams
    max_tokens: int | None
    """What the caller asked for; None if nothing."""
    priority: int = 0
    timeout_s: float | None = None
    cache_salt: str | None = None
    form_origins: Mapping[str, str] = field(default_factory=dict)
    """Where the parts of params.structured_outputs stand in the body (see render/form.py)."""
    pins: Sequence[PrefixPin] = ()
    """What shall stay in the prefix cache of the only prompt."""

    beams: BeamSearchParams | None = None
    """Search for the likeliest answers instead of sampling."""

    @property
    def num_answers(self) -> int:
        """That the engine works on at a time."""
        return len(self.prompts) * (self.params.n if self.beams is None else self.beams.beam_width)

    def params_for(self, prompt: Prompt) -> SamplingParams:
        """The parameters of one prompt."""
        if prompt.max_tokens is None:
            return self.params
        return msgspec.structs.replace(self.params, max_tokens=prompt.max_tokens)

    def beams_for(self, prompt: Prompt) -> BeamSearchParams | None:
        """The search for one prompt's answers."""
        if self.beams is None or prompt.max_tokens is None:
            return self.beams
        return msgspec.structs.replace(self.beams, max_tokens=prompt.max_tokens)
