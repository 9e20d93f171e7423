"""BatchQueue: checks batches as they come and runs them, one at a time per owner, owners side by side.

All lines share `concurrency` slots, so that batches never fill the engine; each owner's batch gets its
turn at them. The queue itself is on the disk: what is here can be lost at any moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set
from functools import partial

from octavo.base.errors import RequestError
from octavo.server.openai.batches.check import check_input
from octavo.server.openai.batches.execute import LineExecutor
from octavo.server.openai.batches.record import (
    CANCELLED,
    CANCELLING,
    COMPLETED,
    FAILED,
    FINALIZING,
    IN_PROGRESS,
    VALIDATING,
    BatchRecord,
)
from octavo.server.openai.batches.run import BatchRun
from octavo.server.openai.batches.schema import BatchError, RequestCounts
from octavo.server.openai.batches.store import BatchStore
from octavo.server.openai.batches.worker import Worker
from octavo.server.openai.files.store import FileStore

logger = logging.getLogger(__name__)

RUNNING = (IN_PROGRESS, FINALIZING)


class BatchQueue:
    """A Background of the server. `owners` says whose keys are known now: other batches wait for theirs."""

    def __init__(
        self,
        *,
        store: BatchStore,
        files: FileStore,
        executor: LineExecutor,
        owners: Callable[[], Set[str]],
        concurrency: int,
        max_line_bytes: int,
    ) -> None:
        self._store = store
        self._files = files
        self._executor = executor
        self._owners = owners
        self._slots = asyncio.Semaphore(concurrency)
        self._max_line_bytes = max_line_bytes
        self._runs: dict[str, BatchRun] = {}
        self._checker = Worker(self._check_one)
        self._runners: dict[str, Worker] = {}
        self._is_stopped = False

    def start(self) -> None:
        if not self._files.disk.is_lasting:
            return
        unfinished = self._store.unfinished()
        kept = {file_id for record in unfinished for file_id in (record.output_file_id, record.error_file_id)}
        self._files.remove_strays(kept)
        self.wake()

    def wake(self) -> None:
        """There are new batches."""
        self._checker.wake()
        for owner in self._owners():
            self._runner(owner).wake()

    def _runner(self, owner: str) -> Worker:
        if owner not in self._runners:
            self._runners[owner] = worker = Worker(partial(self._run_one, owner))
            if self._is_stopped:
                worker.stop()
        return self._runners[owner]

    def stop(self) -> None:
        self._is_stopped = True
        for worker in (self._checker, *self._runners.values()):
            worker.stop()

    async def close(self) -> None:
        for worker in (self._checker, *self._runners.values()):
            await worker.ended()
        self._files.disk.close()

    def counts(self, batch_id: str) -> RequestCounts | None:
        """How far a batch is, if it runs."""
        run = self._runs.get(batch_id)
        return None if run is None else run.counts

    async def cancel(self, record: BatchRecord) -> BatchRecord:
        """Cancel a batch. Raises RequestError if it has ended otherwise, or is about to."""
        if record.status in (CANCELLING, CANCELLED):
            return record
        changed = await asyncio.to_thread(
            self._store.enter, record.id, CANCELLING, from_statuses=(VALIDATING, IN_PROGRESS)
        )
        if changed is None:
            raise RequestError("The batch has ended, or is about to; it cannot be cancelled any more.")
        run = self._runs.get(record.id)
        if run is not None:
            run.stop(CANCELLED)
            return changed
        return await self._conclude(changed, CANCELLED) or changed

    async def _check_one(self) -> bool:
        record = await asyncio.to_thread(self._store.next_to_validate, set(self._owners()))
        if record is None:
            return False
        total, errors = await asyncio.to_thread(self._checked, record)

        def note(record: BatchRecord) -> None:
            record.counts.total, record.errors = total, errors

        if errors:
            await asyncio.to_thread(
                self._store.conclude, record.id, FAILED, from_statuses=(VALIDATING,), change=note
            )
            return True
        await asyncio.to_thread(
            self._store.enter, record.id, IN_PROGRESS, from_statuses=(VALIDATING,), change=note
        )
        self._runner(record.owner).wake()
        return True

    def _checked(self, record: BatchRecord) -> tuple[int, list[BatchError]]:
        path = self._files.disk.content(record.input_file_id)
        try:
            return check_input(path, record.endpoint, self._max_line_bytes)
        except FileNotFoundError:
            return 0, [BatchError("not_found", "The input file is gone.", "input_file_id")]

    async def _run_one(self, owner: str) -> bool:
        found = await asyncio.to_thread(self._store.next_to_run, owner)
        if found is None:
            return False
        run = BatchRun(found, self._files, self._executor, self._slots, self._max_line_bytes)
        self._runs[found.id] = run
        try:
            # From here on a cancel finds the run; one that came just before shows in the status.
            record = await asyncio.to_thread(self._store.get, owner, found.id)
            is_wanted = record.status in RUNNING
            outcome, errors = await self._outcome(run) if is_wanted else (CANCELLED, [])
            await self._conclude(record, outcome, run.counts, errors)
        finally:
            del self._runs[found.id]
        return True

    async def _outcome(self, run: BatchRun) -> tuple[str, list[BatchError]]:
        try:
            outcome = await run.run()
        except Exception:
            logger.exception("A batch failed")
            return FAILED, [BatchError("internal_error", "The server could not execute the batch.")]
        if outcome == FAILED:
            full = self._files.full()
            return FAILED, [BatchError(full.code.value.code, full.message)]
        return outcome, []

    async def _conclude(
        self,
        record: BatchRecord,
        outcome: str,
        counts: RequestCounts | None = None,
        errors: list[BatchError] | None = None,
    ) -> BatchRecord | None:
        """Bring a batch into its last status: cancelled if it was cancelled before it got there."""

        def note(record: BatchRecord) -> None:
            record.counts = counts or record.counts
            record.errors = errors or []

        if outcome == COMPLETED:
            await asyncio.to_thread(self._store.enter, record.id, FINALIZING, from_statuses=RUNNING)
        if outcome != CANCELLED:
            done = await asyncio.to_thread(
                self._store.conclude, record.id, outcome, from_statuses=RUNNING, change=note
            )
            if done is not None:
                return done
        return await asyncio.to_thread(
            self._store.conclude, record.id, CANCELLED, from_statuses=(CANCELLING,), change=note
        )
