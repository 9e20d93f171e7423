"""Worker: does pieces of work for as long as there are some. No task is left when there are none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

RETRY_S = 10.0
"""After something that no single batch is to blame for."""


class Worker:
    """`work` does one piece and says whether there was one. A `wake` that comes meanwhile is not lost."""

    def __init__(self, work: Callable[[], Awaitable[bool]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._is_woken = False
        self._is_stopped = False

    def wake(self) -> None:
        """There may be something to do."""
        self._is_woken = True
        if not self._is_stopped and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._loop())

    def stop(self) -> None:
        """Drop the piece at hand, and take no other."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until what `stop` dropped has cleaned up."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _loop(self) -> None:
        while self._is_woken:
            self._is_woken = False
            try:
                while await self._work():
                    pass
            except Exception:
                # Most likely the disk is full, which may pass.
                logger.exception("Work on batches failed")
                await asyncio.sleep(RETRY_S)
                self._is_woken = True
