"""What callers get: RequestOutput and its parts, shaped like vLLM's. Structs: each token makes some."""

from __future__ import annotations

import msgspec


class Logprob(msgspec.Struct):
    """Log-probability of one token at one position; rank 1 is the most likely."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


LogprobsOnePosition = dict[int, Logprob]
"""Token id -> Logprob: the sampled (or prompt) token first, then the best ones in order."""


class CompletionOutput(msgspec.Struct, kw_only=True):
    """One sample of a request."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[LogprobsOnePosition] | None = None
    finish_reason: str | None = None
    """None while running, then stop, length or abort."""
    stop_reason: int | str | None = None
    """The stop string or stop token that ended it; None for the model's own end of text."""

    def finished(self) -> bool:
        return self.finish_reason is not None


class RequestMetrics(msgspec.Struct, kw_only=True):
    """When things happened, in monotonic seconds, and how much there was."""

    arrival_time: float
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    last_token_time: float | None = None
    finished_time: float | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_preemptions: int = 0


class RequestOutput(msgspec.Struct, kw_only=True):
    """One request's answer, or (streaming) a part of it."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    """Zeros, if the prompt was given as vectors."""
    prompt_logprobs: list[LogprobsOnePosition | None] | None = None
    outputs: list[CompletionOutput] = []
    finished: bool = False
    metrics: RequestMetrics | None = None
    num_cached_tokens: int = 0


class BeamSearchSequence(msgspec.Struct, kw_only=True):
    """One answer of a beam search."""

    tokens: list[int]
    """The prompt's, then the answer's, the end of text among them."""
    logprobs: list[LogprobsOnePosition]
    """The candidates at each position of the answer, best first."""
    cum_logprob: float
    score: float
    """What answers were compared by: cum_logprob and length."""
    text: str
    finish_reason: str
    """stop or length."""


class BeamSearchOutput(msgspec.Struct, kw_only=True):
    """One prompt's answers, best first."""

    sequences: list[BeamSearchSequence]
