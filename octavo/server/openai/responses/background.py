"""Responses that run with nobody connected: a bounded number, each with its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.lifecycle import Lifecycle
from octavo.server.openai.responses.event_log import EventLog
from octavo.server.openai.responses.events import event_frame, stream_error
from octavo.server.openai.responses.run import Run
from octavo.server.openai.responses.store import UNFINISHED, StoredResponse

MAX_FINISHED = 16
"""Finished responses whose events can still be read."""


class Job:
    """One response in the background."""

    def __init__(self, stored: StoredResponse, run: Run) -> None:
        self.stored = stored
        self.log = EventLog()
        self._run = run
        self._task: asyncio.Task[None]
        self._ending: asyncio.Task[None] | None = None

    @property
    def is_done(self) -> bool:
        return self._task.done()

    def start(self, on_done: Callable[[], None]) -> None:
        self._task = asyncio.create_task(self._work())
        self._task.add_done_callback(lambda _: on_done())

    async def cancel(self) -> None:
        """End it, if it has not ended, and wait until it has."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._cancel())
        # Who asks may go away meanwhile.
        await asyncio.shield(self._ending)

    def error_frame(self, error: Exception) -> bytes:
        """The last event of one follower. It takes no number from the events that are still to come."""
        return event_frame(stream_error(error, self.log.end))

    async def abandon(self) -> None:
        """Let it go as it is: the server ends. Who asks for it later hears that it failed."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.log.close()

    async def _work(self) -> None:
        try:
            async with aclosing(self._run.frames()) as frames:
                async for frame in frames:
                    self.log.append(frame)
        except Exception:  # Whoever cancels closes the log, behind what there is to say.
            self.log.close()
            raise
        self.log.close()

    async def _cancel(self) -> None:
        reply = self.stored.reply
        if reply.status in UNFINISHED:  # Else it is being stored, which takes a moment only.
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if reply.status in UNFINISHED:
            for frame in await self._run.cancelled():
                self.log.append(frame)
        self.log.close()


class Background:
    """All jobs by the id of their response."""

    def __init__(self, max_running: int, lifecycle: Lifecycle) -> None:
        self._max_running = max_running
        self._lifecycle = lifecycle
        self._jobs: dict[str, Job] = {}

    def check_room(self) -> None:
        num_running = sum(not job.is_done for job in self._jobs.values())
        if num_running >= self._max_running:
            raise EngineError(
                f"{num_running} responses run in the background already; the server takes no more now.",
                code=ErrorCode.OVERLOADED,
                param="background",
            )

    def start(self, job: Job) -> None:
        self.check_room()
        self._jobs[job.stored.reply.id] = job
        # A drain waits for it, as for every request.
        self._lifecycle.enter()
        job.start(self._ended)

    def find(self, owner: str, response_id: str) -> Job | None:
        job = self._jobs.get(response_id)
        return job if job is not None and job.stored.owner == owner else None

    async def close(self) -> None:
        for job in self._jobs.values():
            await job.abandon()

    def forget(self, response_id: str) -> None:
        self._jobs.pop(response_id, None)

    def _ended(self) -> None:
        self._lifecycle.leave()
        done = [response_id for response_id, job in self._jobs.items() if job.is_done]
        for response_id in done[:-MAX_FINISHED]:
            del self._jobs[response_id]
