"""What requests use of the engine, told to who keeps books, however a request ends."""

from __future__ import annotations

from typing import Protocol

import msgspec

from octavo.engine.open_request import OpenRequest


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """One request, at its end."""

    cached_tokens: int
    output_tokens: int
    seconds: float
    """From the first step that it was in."""


class UsageListener(Protocol):
    """Called in the event loop. `tenant` is that of the request's terms."""

    def begun(self, tenant: str, num_prompt_tokens: int) -> None: ...

    def ended(self, tenant: str, used: Used) -> None: ...

    def held(self, tenant: str, block_seconds: float) -> None:
        """Requests of this tenant that ended held so much of the KV cache: blocks times seconds."""


def used_by(state: OpenRequest[object], now: float) -> Used:
    """What the request used up to `now`."""
    metrics = state.metrics
    began = metrics.first_scheduled_time
    return Used(
        cached_tokens=state.num_cached_tokens,
        output_tokens=metrics.num_output_tokens,
        seconds=0.0 if began is None else now - began,
    )
