"""BatchRun: one batch being executed, from wherever it was left to its end or until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from octavo.base.clock import monotonic
from octavo.server.disconnect import end_tasks
from octavo.server.openai.batches.entries import Entry, EntryError, entry_id
from octavo.server.openai.batches.execute import LineExecutor, execute_all
from octavo.server.openai.batches.journal import Journal, finished_lines
from octavo.server.openai.batches.lines import Line, parse_line, read_lines
from octavo.server.openai.batches.record import COMPLETED, EXPIRED, FAILED, BatchRecord
from octavo.server.openai.batches.schema import RequestCounts
from octavo.server.openai.files.store import FileStore

ROOM_CHECK_S = 1.0
"""How often a batch looks whether its answers still fit on the disk."""

LATE = EntryError("batch_expired", "The line could not be executed before the completion window was over.")


class BatchRun:
    """Make it, then `run` once. `stop` may come at any time."""

    def __init__(
        self,
        record: BatchRecord,
        files: FileStore,
        executor: LineExecutor,
        slots: asyncio.Semaphore,
        max_line_bytes: int,
    ) -> None:
        self.counts = RequestCounts(total=record.counts.total)
        self._record = record
        self._files = files
        self._executor = executor
        self._slots = slots
        self._max_line_bytes = max_line_bytes
        self._outcome = COMPLETED
        self._told_to_stop = asyncio.Event()
        self._room_checked = monotonic()

    def stop(self, outcome: str) -> None:
        """Drop what runs and begin nothing more; `run` returns `outcome`."""
        self._outcome = outcome
        self._told_to_stop.set()

    async def run(self) -> str:
        """Execute the lines without an entry. Returns the status that the batch ends with."""
        disk, record = self._files.disk, self._record
        done = await asyncio.to_thread(self._count_finished)
        self._output = await asyncio.to_thread(Journal, disk.content(record.output_file_id))
        self._errors = await asyncio.to_thread(Journal, disk.content(record.error_file_id))
        try:
            await self._execute(self._pending(done))
            if self._outcome == EXPIRED:
                await asyncio.to_thread(self._note_late_lines)
            return self._outcome
        finally:
            await asyncio.to_thread(self._close)

    async def _execute(self, lines: Iterator[Line]) -> None:
        """Until the last line, the end of the window or `stop`."""
        working = asyncio.create_task(execute_all(lines, self._executed, self._note, self._slots))
        told = asyncio.create_task(self._told_to_stop.wait())
        left_s = max(0.0, self._record.expires_at - self._files.now())
        try:
            await asyncio.wait({working, told}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            elif not told.done():
                self._outcome = EXPIRED
        finally:
            await end_tasks(working, told)

    async def _executed(self, line: Line) -> Entry:
        return await self._executor.execute(line, self._record.owner)

    async def _note(self, entry: Entry) -> None:
        await asyncio.to_thread(self._journal_for(entry).append, entry)
        self._count(entry)
        if monotonic() - self._room_checked > ROOM_CHECK_S:
            self._room_checked = monotonic()
            if await asyncio.to_thread(self._files.room, self._record.owner) <= 0:
                self.stop(FAILED)

    def _journal_for(self, entry: Entry) -> Journal:
        return self._output if entry.is_success else self._errors

    def _count(self, entry: Entry) -> None:
        if entry.is_success:
            self.counts.completed += 1
        else:
            self.counts.failed += 1

    def _close(self) -> None:
        self._output.close()
        self._errors.close()

    def _count_finished(self) -> set[str]:
        """Count the entries there are, and return which lines they are of."""
        disk, record = self._files.disk, self._record
        completed = {found.key for found in finished_lines(disk.content(record.output_file_id))}
        failed = {found.key for found in finished_lines(disk.content(record.error_file_id))}
        self.counts.completed, self.counts.failed = len(completed), len(failed)
        return completed | failed

    def _pending(self, done: set[str]) -> Iterator[Line]:
        """Lines without an entry. The file has been checked as a whole before."""
        path = self._files.disk.content(self._record.input_file_id)
        for raw in read_lines(path, self._max_line_bytes):
            line = parse_line(raw, (self._record.endpoint,))
            if line.custom_id not in done:
                yield line

    def _note_late_lines(self) -> None:
        for line in self._pending(self._count_finished()):
            entry = Entry(id=entry_id(line.number), custom_id=line.custom_id, error=LATE)
            self._errors.append(entry)
            self._count(entry)
