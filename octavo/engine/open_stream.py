"""OpenStream: where one consumer of AsyncLLM waits for its request."""

from __future__ import annotations

import asyncio
from typing import Any

from octavo.base.errors import EngineError, ErrorCode, OctavoError
from octavo.engine.open_request import OpenRequest


class OpenStream:
    """Hot path: once per token of each stream."""

    __slots__ = ("_error", "_waiter", "is_aborted", "num_losses", "state")

    def __init__(self, state: OpenRequest[Any]) -> None:
        self.state = state
        self.is_aborted = False
        """The core was told to end it, and has not answered yet."""
        self.num_losses = 0
        """Cores that are gone since this began."""
        self._error: OctavoError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fail(self, error: OctavoError) -> None:
        self._error = error
        self.wake()

    def raise_failure(self) -> None:
        if self._error is not None:
            raise self._error
        if self.state.error is not None:
            code = self.state.error_code
            raise EngineError(self.state.error, code=None if code is None else ErrorCode[code])

    def changed(self) -> asyncio.Future[None]:
        """Done when there is something to look at that was not there at the call."""
        self._waiter = waiter = asyncio.get_running_loop().create_future()
        return waiter
