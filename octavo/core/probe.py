"""Probe: a request of the core's own, to learn whether it is the requests that fail or the executor."""

from __future__ import annotations

import msgspec

from octavo.messages.params import SamplingParams
from octavo.messages.request import PLAIN_TERMS, EngineRequest

PROBE_ID = "probe"
"""Ids of the engine's requests are random, and longer."""


def probe_like(message: EngineRequest) -> EngineRequest:
    """As small as a request can be, of the kind that the model answers."""
    return msgspec.structs.replace(
        message,
        request_id=PROBE_ID,
        prompt_token_ids=[0],
        output_token_ids=[],
        prompt_vectors=None,
        params=SamplingParams(temperature=0.0, max_tokens=1),
        max_tokens=min(message.max_tokens, 1),
        cache_salt=None,
        terms=PLAIN_TERMS,
        pins=[],
    )
