"""AdmittedStream: a stream that counts from its admission on, and not only from its first step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

Out = TypeVar("Out")


class AdmittedStream(AsyncGenerator[Out, None]):
    """An asynchronous generator that says `leave` if it is closed or dropped before its first step.

    What cleans up in a generator runs only if it has begun. Whoever is admitted and goes away before has to
    be taken off the books as well. Hot path: a step hands on the generator's own.
    """

    __slots__ = ("_has_begun", "_leave", "_loop", "_stream")

    def __init__(self, stream: AsyncGenerator[Out, None], leave: Callable[[], None]) -> None:
        self._stream = stream
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._has_begun = False

    def __anext__(self) -> Awaitable[Out]:  # type: ignore[override]
        self._has_begun = True
        return self._stream.__anext__()

    def asend(self, value: None) -> Any:
        self._has_begun = True
        return self._stream.asend(value)

    def athrow(
        self,
        kind: type[BaseException] | BaseException,
        value: Any = None,
        trace: TracebackType | None = None,
    ) -> Any:
        self._end_unbegun()
        return self._stream.athrow(kind, value, trace)

    async def aclose(self) -> None:
        self._end_unbegun()
        await self._stream.aclose()

    def __del__(self) -> None:
        # Maybe in a thread of the collector, and maybe at the very end.
        if not self._has_begun and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._leave)

    def _end_unbegun(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._leave()
