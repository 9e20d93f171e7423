"""Responses that run with nobody connected: a bounded number, each with its events.

Where they are as many as may be, an owner with fewer than its share among those that have some is still let
in: with k owners that come one after the other the bound may be passed up to 1 + 1/2 + ... + 1/k times.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing

from octavo.base.errors import EngineError, ErrorCode
from octavo.server.lifecycle import Lifecycle
from octavo.server.openai.responses.event_log import EventLog
from octavo.server.openai.responses.events import event_frame, stream_error
from octavo.server.openai.responses.run import Run
from octavo.server.openai.responses.store import UNFINISHED, StoredResponse
from octavo.server.tenants.accounts import Accounts
from octavo.server.tenants.tenant import Tenant

MAX_FINISHED = 16
"""Finished responses whose events can still be read."""


class Job:
    """One response in the background."""

    def __init__(self, stored: StoredResponse, run: Run, tenant: Tenant) -> None:
        self.stored = stored
        self.tenant = tenant
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

    def __init__(self, max_running: int, lifecycle: Lifecycle, accounts: Accounts) -> None:
        self._max_running = max_running
        self._lifecycle = lifecycle
        self._accounts = accounts
        self._jobs: dict[str, Job] = {}

    def check_room(self, owner: str) -> None:
        """Raise OVERLOADED unless one more of this owner may run."""
        running = Counter(job.stored.owner for job in self._jobs.values() if not job.is_done)
        num_running, share = running.total(), self._max_running / len({*running, owner})
        if num_running >= self._max_running and running[owner] + 1 > share:
            raise EngineError(
                f"{num_running} responses run in the background already; the server takes no more now.",
                code=ErrorCode.OVERLOADED,
                param="background",
            )

    def start(self, job: Job) -> None:
        self.check_room(job.stored.owner)
        self._jobs[job.stored.reply.id] = job
        # A drain waits for it, as for every request, and it is one of those that its key may have running.
        self._lifecycle.enter()
        self._accounts.stay(job.tenant)
        job.start(lambda: self._ended(job.tenant))

    def find(self, owner: str, response_id: str) -> Job | None:
        job = self._jobs.get(response_id)
        return job if job is not None and job.stored.owner == owner else None

    async def close(self) -> None:
        for job in self._jobs.values():
            await job.abandon()

    def forget(self, response_id: str) -> None:
        self._jobs.pop(response_id, None)

    def _ended(self, tenant: Tenant) -> None:
        self._lifecycle.leave()
        self._accounts.leave(tenant)
        done = [response_id for response_id, job in self._jobs.items() if job.is_done]
        for response_id in done[:-MAX_FINISHED]:
            del self._jobs[response_id]
