"""Fields of a body for the rarer samplers and for beam search: llama.cpp's and vLLM's names."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from octavo.messages.samplers import MAX_BREAKERS, MAX_LOGPROB_IDS
from octavo.server.body import Body


class RepetitionDetection(Body):
    """vLLM's field: when an answer that goes round in circles ends."""

    max_pattern_size: int = 0
    min_pattern_size: int = 0
    min_count: int = 0


class BeamBody(Body):
    """The fields of beam search. n answers of the best beam_width come back."""

    use_beam_search: bool | None = None
    beam_width: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | Literal["never"] | None = None


class SamplerBody(BeamBody):
    """What the usual fields of a generation do not say."""

    repeat_last_n: int | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: Annotated[list[str] | None, Field(max_length=MAX_BREAKERS)] = None
    repetition_detection: RepetitionDetection | None = None
    logprob_token_ids: Annotated[list[int] | None, Field(max_length=MAX_LOGPROB_IDS)] = None
    detokenize: bool | None = None
    truncation_side: Literal["left", "right"] | None = None
