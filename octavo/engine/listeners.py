"""Listeners: who is told of steps and of what requests used. What they do wrong is nobody else's fault."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from octavo.engine.open_request import OpenRequest
from octavo.engine.usage import UsageListener, used_by
from octavo.messages.result import CoreStats

logger = logging.getLogger(__name__)


class Listeners:
    """All of one engine. They run in the event loop, in the midst of others' requests."""

    def __init__(self) -> None:
        self.of_stats: list[Callable[[CoreStats], None]] = []
        self.of_usage: list[UsageListener] = []

    def stats_came(self, stats: CoreStats) -> None:
        for listener in self.of_stats:
            _tell(listener, stats)

    def request_begun(self, tenant: str, num_prompt_tokens: int) -> None:
        for listener in self.of_usage:
            _tell(listener.begun, tenant, num_prompt_tokens)

    def request_ended(self, state: OpenRequest[Any], now: float) -> None:
        for listener in self.of_usage:
            _tell(listener.ended, state.prepared.samples[0].terms.tenant, used_by(state, now))

    def blocks_held(self, block_seconds: Mapping[str, float]) -> None:
        """By tenant."""
        for tenant, seconds in block_seconds.items():
            for listener in self.of_usage:
                _tell(listener.held, tenant, seconds)


def _tell(call: Callable[..., None], *values: object) -> None:
    try:
        call(*values)
    except Exception:
        logger.exception("A listener failed; the request that it was told of goes on")
