"""A request to a model that answers with numbers: before it runs (PreparedPooling) and while it does."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.engine.outputs import RequestMetrics
from octavo.engine.pooling.outputs import PoolingOutput, PoolingRequestOutput
from octavo.messages.request import EngineRequest
from octavo.messages.result import Numbers, RequestDelta
from octavo.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class PreparedPooling:
    """Checked, and ready for the core."""

    request_id: str
    prompt_token_ids: list[int]
    samples: list[EngineRequest]
    """Just one."""

    @property
    def vector_bytes(self) -> int:
        return 0

    def open(self, tokenizer: Tokenizer) -> PoolingState:  # noqa: ARG002
        return PoolingState(self)


class PoolingState:
    """Waits for the one answer of one request."""

    def __init__(self, prepared: PreparedPooling) -> None:
        self.prepared = prepared
        self.error: str | None = None
        self.error_code: str | None = None
        self.metrics = RequestMetrics(
            arrival_time=prepared.samples[0].arrival_time,
            num_prompt_tokens=len(prepared.prompt_token_ids),
        )
        self._numbers: Numbers | None = None
        self.num_cached_tokens = 0
        self._is_ended = False

    @property
    def has_output(self) -> bool:
        return self._is_ended or self.error is not None

    def has_ended(self, index: int) -> bool:  # noqa: ARG002
        return self._is_ended

    def output_token_ids(self, index: int) -> list[int]:  # noqa: ARG002
        return []

    def add(self, index: int, delta: RequestDelta, now: float) -> bool:  # noqa: ARG002
        """Take the delta. Nothing is ever aborted because of it."""
        self._is_ended = delta.finish_reason is not None
        self._numbers = delta.numbers
        self.num_cached_tokens = delta.num_cached_tokens
        self.error, self.error_code = delta.error, delta.error_code
        if self._is_ended and delta.numbers is None and self.error is None:
            self.error = "The engine ended the request before its answer was there."
        metrics = self.metrics
        metrics.num_preemptions = delta.num_preemptions
        metrics.first_token_time = metrics.last_token_time = metrics.finished_time = now
        if delta.timing is not None:
            metrics.first_scheduled_time = delta.timing.first_scheduled
        return False

    def catch_up(self) -> bool:
        return False

    def take_output(self) -> PoolingRequestOutput | None:
        if self._numbers is None:
            return None
        return PoolingRequestOutput(
            request_id=self.prepared.request_id,
            outputs=PoolingOutput(self._numbers),
            prompt_token_ids=self.prepared.prompt_token_ids,
            num_cached_tokens=self.num_cached_tokens,
            metrics=self.metrics,
        )
