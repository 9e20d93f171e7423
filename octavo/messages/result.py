"""What comes back: StepOutput (worker to core) and RequestDelta (core to engine)."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities at one position: the token there first, then the best ones in order.

    token_ids[0] is the sampled (or prompt) token with rank `rank` (1 is best); token_ids[1:] are the
    top k. The first may appear again among them.
    """

    token_ids: list[int]
    logprobs: list[float]
    rank: int


class Numbers(msgspec.Struct, frozen=True, array_like=True):
    """What a model answers with that does not write: float32, little-endian, row by row."""

    data: bytes
    shape: list[int]
    """[numbers], or [tokens, numbers] where each token has an answer of its own."""


class StepOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What one step produced. token_ids and logprobs are parallel to `rows`."""

    step: int
    rows: list[int]
    """Rows that sampled a token in this step."""
    token_ids: list[int]
    logprobs: dict[int, TokenLogprobs] = {}
    """By row, where asked for."""
    prompt_logprobs: dict[int, list[TokenLogprobs]] = {}
    """By row: the prompt positions whose predecessors this step computed, in order."""
    failed: dict[int, str] = {}
    """By row: what went wrong for this request alone (no token was sampled)."""
    refused: list[int] = []
    """Rows among these whose own wish it was that could not be met: to send it again is of no use."""
    forced: dict[int, list[int]] = {}
    """By row: tokens that can only follow the sampled one; the worker has appended them to the row, too.

    Only while no later step is in flight.
    """
    numbers: dict[int, Numbers] = {}
    """By row, where the answer is no token: what stands in token_ids means nothing then."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one request in the core, monotonic seconds."""

    arrival: float
    first_scheduled: float | None = None
    first_token: float | None = None
    last_token: float | None = None


class RequestDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What happened to one request since the last delta."""

    request_id: str
    token_ids: list[int]
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    """The stop token that ended it, if it was one of params.stop_token_ids (not plain end-of-text)."""
    logprobs: list[TokenLogprobs] | None = None
    prompt_logprobs: list[TokenLogprobs] | None = None
    """All prompt positions after the first, sent once, with the first token."""
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    numbers: Numbers | None = None
    """The whole answer of a model that does not write."""
    timing: Timing | None = None
    """Sent with the first token and at the end."""
    error: str | None = None
    error_code: str | None = None
    """Name in ErrorCode, where it is not ENGINE_FAILED."""


class CoreStats(msgspec.Struct, frozen=True, kw_only=True):
    """Gauges and counters of the core after a step. Counters only grow."""

    num_running: int = 0
    num_waiting: int = 0
    num_blocks: int = 0
    num_free_blocks: int = 0
    """Blocks that no request holds (they may still keep a reusable prefix)."""
    num_cached_blocks: int = 0
    prefix_queries_tokens: int = 0
    prefix_hits_tokens: int = 0
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    steps: int = 0
    step_tokens: int = 0
    """Tokens computed by the last step."""

    core_restarts: int = 0
    """Cores that were started in place of one that died or got stuck."""

    @classmethod
    def idle(cls, num_blocks: int) -> CoreStats:
        """Of a core that has done nothing yet. num_blocks: those that can be handed out."""
        return cls(num_blocks=num_blocks, num_free_blocks=num_blocks)

    def after(self, before: CoreStats) -> CoreStats:
        """The same with all that was counted by the cores before this one."""
        return msgspec.structs.replace(
            self, **{name: getattr(self, name) + getattr(before, name) for name in COUNTERS}
        )

    @property
    def kv_usage(self) -> float:
        """Share of blocks held by requests, 0 to 1."""
        return 1.0 - self.num_free_blocks / self.num_blocks if self.num_blocks else 0.0


COUNTERS = (
    "prefix_queries_tokens",
    "prefix_hits_tokens",
    "num_preemptions",
    "prompt_tokens",
    "generation_tokens",
    "steps",
    "core_restarts",
)
"""Fields of CoreStats that only grow."""
