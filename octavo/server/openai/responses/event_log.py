"""Events of a background response, kept so that clients can come and read them from any place."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from octavo.base.errors import EngineError, ErrorCode, RequestError

MAX_LOG_BYTES = 2 * 2**20
"""Of one response. Beyond it the oldest events go, and a stream can only be resumed behind them."""


class EventLog:
    """Frames by sequence number: the first is 0. Grows until it is closed."""

    def __init__(self, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._max_bytes = max_bytes
        self._frames: deque[bytes] = deque()
        self._first = 0
        """Number of the oldest frame that is kept."""
        self._num_bytes = 0
        self._is_closed = False
        self._news = asyncio.Event()

    def append(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._num_bytes += len(frame)
        while self._num_bytes > self._max_bytes and len(self._frames) > 1:
            self._num_bytes -= len(self._frames.popleft())
            self._first += 1
        self._tell()

    @property
    def end(self) -> int:
        """The number that the next frame gets."""
        return self._first + len(self._frames)

    def close(self) -> None:
        """No more frames come."""
        self._is_closed = True
        self._tell()

    def check_start(self, after: int) -> None:
        """Refuse to begin behind event `after` where that is no longer, or not yet, possible."""
        if not self._first - 1 <= after < self.end:
            raise RequestError(
                f"Events behind number {after} cannot be sent: events {self._first} to {self.end - 1} are "
                "there.",
                param="starting_after",
            )

    async def follow(self, after: int) -> AsyncGenerator[bytes, None]:
        """Frames behind number `after`, to the last one."""
        number = after + 1
        while True:
            while number < self.end:
                if number < self._first:
                    raise EngineError(
                        "The client read too slowly: the next events are no longer kept. Fetch the response.",
                        code=ErrorCode.OVERLOADED,
                    )
                yield self._frames[number - self._first]
                number += 1
            if self._is_closed:
                return
            news = self._news
            await news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
