"""BatchStore: the queue on the disk. Everything here blocks: call it in a thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from octavo.base.errors import EngineError, ErrorCode, RequestError
from octavo.server.errors import quoted
from octavo.server.openai.batches.record import CANCELLING, FINALIZING, IN_PROGRESS, VALIDATING, BatchRecord
from octavo.server.openai.files.store import UNFINISHED, FileStore, StoredFile
from octavo.server.paging import Page, rows_of

MAX_UNFINISHED = 256
"""Batches of one owner that wait or run."""

MAX_KEPT = 1000
"""Batches of one owner that are remembered; beyond that the oldest that have ended are forgotten."""


class BatchStore:
    """Batches by owner, in the order they came."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._disk = files.disk

    def add(self, record: BatchRecord) -> None:
        """Raises OVERLOADED if the owner has too many unfinished ones."""
        with self._disk.transaction() as connection:
            (num_unfinished,) = connection.execute(
                f"SELECT count(*) FROM batches WHERE owner = ? AND {UNFINISHED}", [record.owner]
            ).fetchone()
            if num_unfinished >= MAX_UNFINISHED:
                raise EngineError(
                    f"{num_unfinished} of your batches have not ended; at most {MAX_UNFINISHED}. "
                    "Wait for some, or cancel them.",
                    code=ErrorCode.OVERLOADED,
                )
            connection.execute(
                "INSERT INTO batches "
                "(id, owner, status, input_file_id, output_file_id, error_file_id, record) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    record.id,
                    record.owner,
                    record.status,
                    record.input_file_id,
                    record.output_file_id,
                    record.error_file_id,
                    msgspec.json.encode(record),
                ],
            )
            connection.execute(
                f"DELETE FROM batches WHERE owner = ? AND NOT {UNFINISHED} AND seq <= "
                "(SELECT seq FROM batches WHERE owner = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                [record.owner, record.owner, MAX_KEPT],
            )

    def get(self, owner: str, batch_id: str) -> BatchRecord:
        """Raises NOT_FOUND, for those of others too."""
        with self._disk.transaction() as connection:
            record = _found(connection, batch_id)
        if record is None or record.owner != owner:
            raise RequestError(
                f"There is no batch {quoted(batch_id)}.", code=ErrorCode.NOT_FOUND, param="batch_id"
            )
        return record

    def page(self, owner: str, page: Page) -> tuple[list[BatchRecord], bool]:
        """Some batches, and whether more follow."""
        with self._disk.transaction() as connection:
            rows, has_more = rows_of(connection, page, "batches", "owner = ?", [owner])
        return [_read(row) for row in rows], has_more

    def unfinished(self) -> list[BatchRecord]:
        """All that wait or run, of all owners, oldest first."""
        with self._disk.transaction() as connection:
            rows = connection.execute(f"SELECT record FROM batches WHERE {UNFINISHED} ORDER BY seq")
            return [_read(row) for row in rows]

    def next_to_validate(self, owners: set[str]) -> BatchRecord | None:
        """The oldest batch nobody has looked at."""
        return self._first("status = ?", [VALIDATING], owners)

    def next_to_run(self, owner: str) -> BatchRecord | None:
        """The oldest batch of an owner that is good and has not ended."""
        return self._first("status IN (?, ?, ?)", [CANCELLING, IN_PROGRESS, FINALIZING], {owner})

    def enter(
        self,
        batch_id: str,
        status: str,
        *,
        from_statuses: tuple[str, ...],
        change: Callable[[BatchRecord], None] = lambda _: None,
    ) -> BatchRecord | None:
        """Move a batch into a status; None if it is in another one by now, and nothing changes."""
        with self._disk.transaction() as connection:
            record = _found(connection, batch_id)
            if record is None or record.status not in from_statuses:
                return None
            self._enter(connection, record, status, change)
            return record

    def conclude(
        self,
        batch_id: str,
        status: str,
        *,
        from_statuses: tuple[str, ...],
        change: Callable[[BatchRecord], None] = lambda _: None,
    ) -> BatchRecord | None:
        """Like `enter`, for a last status: what was written so far becomes files, in the same change."""
        with self._disk.transaction() as connection:
            record = _found(connection, batch_id)
            if record is None or record.status not in from_statuses:
                return None
            record.has_output = self._list(connection, record, record.output_file_id, "output")
            record.has_errors = self._list(connection, record, record.error_file_id, "errors")
            self._enter(connection, record, status, change)
            return record

    def _enter(
        self,
        connection: sqlite3.Connection,
        record: BatchRecord,
        status: str,
        change: Callable[[BatchRecord], None],
    ) -> None:
        record.status = status
        record.times[status] = int(self._files.now())
        change(record)
        connection.execute(
            "UPDATE batches SET status = ?, record = ? WHERE id = ?",
            [status, msgspec.json.encode(record), record.id],
        )

    def _list(self, connection: sqlite3.Connection, record: BatchRecord, file_id: str, kind: str) -> bool:
        """Make a file of a journal, if anything was written into it."""
        path = self._disk.content(file_id)
        num_bytes = path.stat().st_size if path.exists() else 0
        if not num_bytes:
            path.unlink(missing_ok=True)
            return False
        created_at = int(self._files.now())
        life_s = record.output_life_s
        file = StoredFile(
            id=file_id,
            owner=record.owner,
            purpose="batch_output",
            filename=f"{record.id}_{kind}.jsonl",
            num_bytes=num_bytes,
            created_at=created_at,
            expires_at=None if life_s is None else created_at + life_s,
        )
        self._files.add(file, connection)
        return True

    def _first(self, condition: str, values: list[str], owners: set[str]) -> BatchRecord | None:
        places = ", ".join("?" * len(owners))
        with self._disk.transaction() as connection:
            row = connection.execute(
                f"SELECT record FROM batches WHERE {condition} AND owner IN ({places}) ORDER BY seq LIMIT 1",
                [*values, *owners],
            ).fetchone()
        return None if row is None else _read(row)


def _found(connection: sqlite3.Connection, batch_id: str) -> BatchRecord | None:
    row = connection.execute("SELECT record FROM batches WHERE id = ?", [batch_id]).fetchone()
    return None if row is None else _read(row)


def _read(row: sqlite3.Row) -> BatchRecord:
    return msgspec.json.decode(row["record"], type=BatchRecord)
