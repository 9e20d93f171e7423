"""FileStore: who has which files, and how much room is left. Everything here blocks: call it in a thread."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from octavo.base.errors import ErrorCode, RequestError
from octavo.server.errors import quoted
from octavo.server.openai.files.disk import Disk
from octavo.server.paging import Page, rows_of

MAX_FILES = 10_000
"""Of all owners together; each has an equal share."""

MIN_LIFE_S, MAX_LIFE_S = 3600, 30 * 24 * 3600
"""What expires_after and output_expires_after may ask for."""

Now = Callable[[], float]
"""Unix seconds: what files and batches are stamped with has to make sense after a restart."""


class StoredFile(msgspec.Struct, kw_only=True):
    """A file as the database has it."""

    id: str
    owner: str
    purpose: str
    filename: str
    num_bytes: int
    created_at: int
    expires_at: int | None = None


def new_file_id() -> str:
    return f"file-{secrets.token_hex(16)}"


class FileStore:
    """Files by owner. An owner never learns of another's files, nor whether there are any."""

    def __init__(self, disk: Disk, *, max_bytes: int, num_owners: int, now: Now) -> None:
        self.disk = disk
        self.now = now
        self._max_bytes = max_bytes // max(1, num_owners)
        self._max_files = MAX_FILES // max(1, num_owners)

    def room(self, owner: str) -> int:
        """Bytes that the owner may still store; none is left at 0 and below."""
        with self.disk.transaction() as connection:
            self._sweep(connection)
            (num_bytes,) = connection.execute(
                "SELECT coalesce(sum(num_bytes), 0) FROM files WHERE owner = ?", [owner]
            ).fetchone()
            left: int = self._max_bytes - num_bytes - self._num_bytes_being_written(connection, owner)
            return left

    def room_for_file(self, owner: str) -> int:
        """Bytes that one more file may have. Raises STORAGE_FULL if there may be none."""
        room = self.room(owner)
        with self.disk.transaction() as connection:
            (num_files,) = connection.execute(
                "SELECT count(*) FROM files WHERE owner = ?", [owner]
            ).fetchone()
        if num_files >= self._max_files:
            raise RequestError(
                f"You have {num_files} files; at most {self._max_files} are kept. Delete some.",
                code=ErrorCode.STORAGE_FULL,
            )
        if room <= 0:
            raise self.full()
        return room

    def full(self) -> RequestError:
        """What to say when files do not fit any more."""
        return RequestError(
            f"Your files and batches may take {self._max_bytes} bytes together. Delete files you no longer "
            "need, or raise --max-stored-bytes.",
            code=ErrorCode.STORAGE_FULL,
        )

    def add(self, file: StoredFile, connection: sqlite3.Connection) -> None:
        """List a file whose content is complete."""
        connection.execute(
            "INSERT INTO files (id, owner, purpose, filename, num_bytes, created_at, expires_at) "
            "VALUES (:id, :owner, :purpose, :filename, :num_bytes, :created_at, :expires_at)",
            msgspec.structs.asdict(file),
        )

    def get(self, owner: str, file_id: str) -> StoredFile:
        """Raises NOT_FOUND, for files of others and expired ones too."""
        with self.disk.transaction() as connection:
            return self._get(connection, owner, file_id)

    def page(self, owner: str, purpose: str | None, page: Page) -> tuple[list[StoredFile], bool]:
        """Some files, and whether more follow."""
        condition, values = "owner = ? AND (expires_at IS NULL OR expires_at > ?)", [owner, self.now()]
        if purpose is not None:
            condition, values = f"{condition} AND purpose = ?", [*values, purpose]
        with self.disk.transaction() as connection:
            rows, has_more = rows_of(connection, page, "files", condition, values)
        return [_stored(row) for row in rows], has_more

    def delete(self, owner: str, file_id: str) -> None:
        """Forget a file and its content. Raises NOT_FOUND, or INVALID_VALUE while a batch reads it."""
        with self.disk.transaction() as connection:
            file = self._get(connection, owner, file_id)
            (num_readers,) = connection.execute(
                f"SELECT count(*) FROM batches WHERE input_file_id = ? AND {UNFINISHED}", [file.id]
            ).fetchone()
            if num_readers:
                raise RequestError("A batch that has not ended reads this file; cancel the batch first.")
            connection.execute("DELETE FROM files WHERE id = ?", [file.id])
        self.content(file).unlink(missing_ok=True)

    def content(self, file: StoredFile) -> Path:
        """Where its bytes are."""
        return self.disk.content(file.id)

    def remove_strays(self, kept_ids: set[str]) -> None:
        """Delete contents that belong to no file: what an end in the middle of something left.

        `kept_ids` are those that batches are still writing.
        """
        with self.disk.transaction() as connection:
            self._sweep(connection)
            listed = {row["id"] for row in connection.execute("SELECT id FROM files")}
        for path in self.disk.contents():
            if path.name not in listed and path.name not in kept_ids:
                path.unlink(missing_ok=True)

    def _num_bytes_being_written(self, connection: sqlite3.Connection, owner: str) -> int:
        """What unfinished batches have answered so far."""
        rows = connection.execute(
            f"SELECT output_file_id, error_file_id FROM batches WHERE owner = ? AND {UNFINISHED}", [owner]
        )
        paths = [self.disk.content(file_id) for row in rows for file_id in row]
        return sum(path.stat().st_size for path in paths if path.exists())

    def _get(self, connection: sqlite3.Connection, owner: str, file_id: str) -> StoredFile:
        row = connection.execute(
            "SELECT * FROM files WHERE id = ? AND owner = ? AND (expires_at IS NULL OR expires_at > ?)",
            [file_id, owner, self.now()],
        ).fetchone()
        if row is None:
            raise RequestError(
                f"There is no file {quoted(file_id)}.", code=ErrorCode.NOT_FOUND, param="file_id"
            )
        return _stored(row)

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """Delete what has expired, but for inputs that a batch still reads."""
        rows = connection.execute(
            "SELECT id FROM files WHERE expires_at <= ? AND id NOT IN "
            f"(SELECT input_file_id FROM batches WHERE {UNFINISHED})",
            [self.now()],
        ).fetchall()
        for row in rows:
            connection.execute("DELETE FROM files WHERE id = ?", [row["id"]])
            self.disk.content(row["id"]).unlink(missing_ok=True)


UNFINISHED = "status IN ('validating', 'in_progress', 'finalizing', 'cancelling')"


def _stored(row: sqlite3.Row) -> StoredFile:
    return msgspec.convert({name: row[name] for name in StoredFile.__struct_fields__}, StoredFile)
