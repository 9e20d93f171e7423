"""What the engine sends to the core: requests and aborts."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from octavo.messages.params import SamplingParams
from octavo.messages.pooling import PoolingParams
from octavo.messages.prompt_vectors import PromptVectors


class PrefixPin(msgspec.Struct, frozen=True, array_like=True):
    """Keep the KV of the prompt's first tokens reusable for a while, before that of others. A wish."""

    num_tokens: int
    ttl_s: float
    """Seconds from the first token on."""


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """On whose behalf a request runs, and until when."""

    tenant: str = "anonymous"
    """Requests of one tenant share one turn where the queue is fair."""
    weight: float = 1.0
    """The tenant's share of the engine beside others that wait."""
    deadline: float | None = None
    """On the clock of arrival_time: a request that still waits then never runs, one that runs is ended."""


PLAIN_TERMS = Terms()


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True, tag="request"):
    """One sample of one validated request. Ids and counts only; the core never sees text.

    request_id is ours: random, unique, never taken from the caller. params.n is ignored here: the
    engine makes one EngineRequest per sample (see Samples). params.max_tokens is never None here: the
    engine has resolved it against the model's length. arrival_time is the sender's monotonic clock in
    seconds (one machine: comparable with the core's).
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams
    max_tokens: int
    eos_token_ids: list[int]
    """Tokens that end the answer unless params.ignore_eos (params.stop_token_ids always do)."""
    random_key: int
    """64-bit key of this sample's random numbers: from params.seed and the sample's index, else random."""
    arrival_time: float
    priority: int = 0
    """Lower runs first under the priority policy."""
    cache_salt: str | None = None
    """Requests share prefix-cache blocks only under the same salt."""
    pins: list[PrefixPin] = []
    prompt_vectors: PromptVectors | None = None
    """The prompt, where it is not tokens: prompt_token_ids are placeholders then, as many as vectors."""
    pooling: PoolingParams | None = None
    """What to answer with instead of tokens; max_tokens is 0 then: the request ends with its prompt."""
    terms: Terms = PLAIN_TERMS
    output_token_ids: list[int] = []
    """What an earlier core answered already: the answer goes on behind it, at the same positions."""
    reads_prefix_cache: bool = True
    """False: every token of the prompt is computed, because all their hidden states are needed."""


class Samples(msgspec.Struct, frozen=True, tag="samples"):
    """Several samples of one prompt. What they share crosses once, and the core holds it once."""

    first: EngineRequest
    others: list[tuple[str, int]]
    """Ids and random keys: in all else they are as `further` says."""

    def apart(self) -> list[EngineRequest]:
        """One by one, with the same lists and parameters."""
        like = further(self.first)
        others = (
            msgspec.structs.replace(like, request_id=request_id, random_key=key)
            for request_id, key in self.others
        )
        return [self.first, *others]


def further(first: EngineRequest) -> EngineRequest:
    """What other samples of the same prompt are like: they do not report on it once more."""
    params = first.params
    if params.prompt_logprobs is None:
        return first
    return msgspec.structs.replace(first, params=msgspec.structs.replace(params, prompt_logprobs=None))


def together(samples: Sequence[EngineRequest]) -> EngineRequest | Samples:
    """One message for all samples of a request."""
    first, *others = samples
    if not others:
        return first
    return Samples(first, [(sample.request_id, sample.random_key) for sample in others])


class AbortRequest(msgspec.Struct, frozen=True, kw_only=True, tag="abort"):
    """Stop these requests and give back all they hold. Unknown ids are ignored."""

    request_ids: list[str]
