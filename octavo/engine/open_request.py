"""What the engine asks of every kind of request: before it runs, and while it does."""

from __future__ import annotations

from typing import Protocol, TypeVar

from octavo.engine.outputs import RequestMetrics
from octavo.messages.request import EngineRequest
from octavo.messages.result import RequestDelta
from octavo.tokens.tokenizer import Tokenizer

O_co = TypeVar("O_co", covariant=True)
"""What its caller gets."""


class Prepared(Protocol[O_co]):
    """Validated, and split into what the core gets."""

    @property
    def request_id(self) -> str: ...

    @property
    def samples(self) -> list[EngineRequest]: ...

    @property
    def vector_bytes(self) -> int:
        """What prompts of vectors take, a copy for each sample."""

    def open(self, tokenizer: Tokenizer) -> OpenRequest[O_co]:
        """The state of this request from now on."""


class OpenRequest(Protocol[O_co]):
    """Takes deltas, gives outputs."""

    error: str | None
    """Why it failed, if it did."""
    error_code: str | None
    """Name in ErrorCode, where it is not ENGINE_FAILED."""

    num_cached_tokens: int
    metrics: RequestMetrics

    @property
    def prepared(self) -> Prepared[O_co]: ...

    @property
    def has_output(self) -> bool:
        """take_output() has something, or the request failed. Asked per token: cheap."""

    def has_ended(self, index: int) -> bool:
        """Sample `index` gets no more deltas."""

    def output_token_ids(self, index: int) -> list[int]:
        """All tokens of sample `index` so far."""

    def add(self, index: int, delta: RequestDelta, now: float) -> bool:
        """Take a delta of sample `index`. Returns True if the core must be told to abort that sample."""

    def catch_up(self) -> bool:
        """Do a piece of what take_output() would do at once. False: there is none. Asked per token: cheap."""

    def take_output(self) -> O_co | None:
        """What the caller is owed now, if anything."""
