"""AdmittedStream: a stream that counts from its admission on, and not only from its first step.

What cleans up in a generator runs only if it has begun. Whoever is admitted and goes away before has to be
taken off the books as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

Out = TypeVar("Out")


class Admission:
    """A request on the books until it leaves: once, however often that is said."""

    __slots__ = ("_leave", "is_over")

    def __init__(self, leave: Callable[[], None]) -> None:
        self._leave = leave
        self.is_over = False

    def end(self) -> None:
        if not self.is_over:
            self.is_over = True
            self._leave()


class AdmittedStream(AsyncGenerator[Out, None]):
    """An asynchronous generator that ends its admission when it is closed or dropped, begun or not.

    Hot path: a step hands on the generator's own.
    """

    __slots__ = ("_admission", "_loop", "_stream")

    def __init__(
        self,
        stream: AsyncGenerator[Out, None],
        admission: Admission,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """stream: ends the admission, too, when it comes to its end by itself. loop: where that is done for
        one that is dropped; it need not run yet."""
        self._stream = stream
        self._admission = admission
        self._loop = loop

    def __anext__(self) -> Awaitable[Out]:  # type: ignore[override]
        return self._stream.__anext__()

    def asend(self, value: None) -> Any:
        return self._stream.asend(value)

    async def athrow(
        self,
        kind: type[BaseException] | BaseException,
        value: Any = None,
        trace: TracebackType | None = None,
    ) -> Any:
        try:
            return await self._stream.athrow(kind, value, trace)
        except BaseException:
            self._admission.end()
            raise

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._admission.end()

    def __del__(self) -> None:
        # Maybe in a thread of the collector, and maybe at the very end.
        if not self._admission.is_over and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._admission.end)
