"""OutputProcessor: routes the core's deltas to their requests and says which samples to abort."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

from octavo.base.clock import Clock, monotonic
from octavo.base.errors import ErrorCode
from octavo.engine.open_request import OpenRequest, Prepared
from octavo.messages.result import RequestDelta
from octavo.tokens.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

Out = TypeVar("Out")

_CANNOT_TELL = "The answer could not be put together. Send the request again."


class OutputProcessor:
    """Requests in flight, found by the ids of their samples."""

    def __init__(self, tokenizer: Tokenizer, clock: Clock = monotonic) -> None:
        self._tokenizer = tokenizer
        self._clock = clock
        self._samples: dict[str, tuple[OpenRequest[Any], int]] = {}

    def __len__(self) -> int:
        """Samples that have not ended."""
        return len(self._samples)

    def open(self, prepared: Prepared[Out]) -> OpenRequest[Out]:
        state = prepared.open(self._tokenizer)
        for index, sample in enumerate(prepared.samples):
            self._samples[sample.request_id] = (state, index)
        return state

    def close(self, state: OpenRequest[Any]) -> list[str]:
        """Forget a request. Returns the ids of its samples that the core may still be running."""
        ids = [sample.request_id for sample in state.prepared.samples]
        return [sample_id for sample_id in ids if self._samples.pop(sample_id, None) is not None]

    def process(self, deltas: Iterable[RequestDelta]) -> tuple[list[OpenRequest[Any]], list[str]]:
        """Apply deltas. Returns the requests that changed and the sample ids to abort."""
        now = self._clock()
        changed: dict[int, OpenRequest[Any]] = {}
        to_abort: list[str] = []
        for delta in deltas:
            entry = self._samples.get(delta.request_id)
            if entry is None:
                continue
            state, index = entry
            try:
                if state.add(index, delta, now):
                    to_abort.append(delta.request_id)
            except Exception:
                # Its stream ends with this, and has the rest of it aborted.
                logger.exception("The answer of one request could not be put together")
                state.error, state.error_code = _CANNOT_TELL, ErrorCode.INTERNAL.name
            if state.has_ended(index):
                del self._samples[delta.request_id]
            changed[id(state)] = state
        return list(changed.values()), to_abort
