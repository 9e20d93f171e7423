"""Request: one sample from arrival to end, as the core sees it: ids, counts and the blocks it holds.

Its state is moved by the scheduler alone. No text, no tensors.
"""

from __future__ import annotations

from enum import Enum

from octavo.core.kv.block import Holding
from octavo.messages.request import EngineRequest
from octavo.messages.result import Timing, TokenLogprobs

Rank = tuple[int, int]
"""Smaller is more important: (priority class, number of arrival)."""


class Share:
    """What was done for one tenant, where the queue is fair."""

    __slots__ = ("served", "weight")

    def __init__(self) -> None:
        self.served = 0.0
        """Work in prompt tokens, divided by the weight."""
        self.weight = 1.0


class State(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class Request:
    """Tokens it knows, tokens it has computed; a step closes the gap.

    num_known counts tokens that are sampled but still on their way here; token_ids does not hold
    those yet. num_computed counts tokens whose step is submitted.
    """

    __slots__ = (
        "end_tokens",
        "eos_tokens",
        "first_scheduled",
        "first_token",
        "kv",
        "last_token",
        "max_tokens",
        "max_total",
        "message",
        "min_tokens",
        "num_cached",
        "num_computed",
        "num_known",
        "num_preemptions",
        "num_prompt",
        "prompt_logprobs",
        "rank",
        "request_id",
        "row",
        "share",
        "state",
        "token_ids",
    )

    def __init__(self, message: EngineRequest, rank: Rank, kv: Holding) -> None:
        params = message.params
        self.message = message
        self.request_id = message.request_id
        self.rank = rank
        self.kv = kv
        self.state = State.WAITING
        self.row = -1
        self.share: Share | None = None
        self.token_ids = [*message.prompt_token_ids, *message.output_token_ids]
        self.num_prompt = len(message.prompt_token_ids)
        self.num_known = len(self.token_ids)
        self.num_computed = 0
        self.max_tokens = message.max_tokens
        self.max_total = self.num_prompt + max(message.max_tokens, 1)
        self.min_tokens = params.min_tokens
        self.eos_tokens = frozenset(() if params.ignore_eos else message.eos_token_ids)
        self.end_tokens = self.eos_tokens.union(params.stop_token_ids or ())
        self.prompt_logprobs: list[TokenLogprobs] | None = None if params.prompt_logprobs is None else []
        self.num_cached = 0
        self.num_preemptions = 0
        self.first_scheduled: float | None = None
        self.first_token: float | None = None
        self.last_token: float | None = None

    @property
    def num_in_flight(self) -> int:
        """Sampled tokens whose value has not arrived yet."""
        return self.num_known - len(self.token_ids)

    @property
    def max_cached_tokens(self) -> int:
        """The most tokens that may come from the prefix cache.

        One has to be left to compute. Prompt log-probabilities need the logits of every position that
        has not reported yet, and some answers the hidden state of every token.
        """
        if not self.message.reads_prefix_cache:
            return 0
        most = len(self.token_ids) - 1
        gathered = self.prompt_logprobs
        if gathered is None or len(gathered) >= self.num_prompt - 1:
            return most
        return min(most, len(gathered))

    def add_prompt_logprobs(self, start: int, entries: list[TokenLogprobs]) -> None:
        """Keep what a step that began at token `start` reported; positions seen before are skipped."""
        gathered = self.prompt_logprobs
        if gathered is not None and start <= len(gathered):
            gathered.extend(entries[len(gathered) - start :])

    @property
    def timing(self) -> Timing:
        return Timing(
            arrival=self.message.arrival_time,
            first_scheduled=self.first_scheduled,
            first_token=self.first_token,
            last_token=self.last_token,
        )
