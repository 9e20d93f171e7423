"""A shelf in an SQLite file: there again after a restart. One server uses a file at a time."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from octavo.base.errors import ConfigError
from octavo.server.openai.responses.shares import Shares
from octavo.server.openai.responses.store import ShelfError

T = TypeVar("T")

APPLICATION_ID = 0x0C7A_5E1F
"""Tells our files from other people's."""
VERSION = 2
"""1 had no owners."""
SETTINGS = (
    # Nobody else may write: what one server keeps it also counts.
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    # A power cut may cost the last responses, never the file.
    "PRAGMA synchronous = NORMAL",
    "PRAGMA secure_delete = ON",
)
TABLES = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
    """CREATE TABLE IF NOT EXISTS responses (
        number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, data BLOB NOT NULL,
        owner TEXT NOT NULL DEFAULT '')""",
    "CREATE INDEX IF NOT EXISTS responses_of_owner ON responses (owner, number)",
)
FROM_VERSION_1 = (
    "ALTER TABLE responses ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    """UPDATE responses SET owner = coalesce(json_extract(CAST(data AS TEXT), '$.owner'), '')
        WHERE json_valid(CAST(data AS TEXT))""",
)


class SqliteShelf:
    """Bytes by name, the oldest first. All statements run in one thread of their own."""

    def __init__(self, path: str, max_count: int, max_bytes: int) -> None:
        self._shares = Shares(max_count, max_bytes)
        self._file = _opened(Path(path))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="responses")
        self._measure()

    async def get(self, name: str) -> bytes | None:
        return await self._run(lambda: self._get(name))

    async def put(self, owner: str, name: str, data: bytes) -> None:
        await self._run(lambda: self._put(owner, name, data))

    async def delete(self, name: str) -> bool:
        return await self._run(lambda: self._delete(name))

    def close(self) -> None:
        """Let the file go. The shelf is of no use afterwards."""
        self._thread.shutdown()
        self._file.close()

    async def _run(self, work: Callable[[], T]) -> T:
        def in_one_transaction() -> T:
            try:
                with self._file:
                    return work()
            except sqlite3.Error as error:
                self._is_measured = False
                raise ShelfError(str(error)) from None

        return await asyncio.get_running_loop().run_in_executor(self._thread, in_one_transaction)

    def _get(self, name: str) -> bytes | None:
        row = self._file.execute("SELECT data FROM responses WHERE name = ?", (name,)).fetchone()
        return None if row is None else row[0]

    def _put(self, owner: str, name: str, data: bytes) -> None:
        if not self._is_measured:  # What a failed transaction counted was taken back.
            self._measure()
        self._delete(name)
        self._file.execute("INSERT INTO responses (owner, name, data) VALUES (?, ?, ?)", (owner, name, data))
        self._shares.add(owner, len(data))
        while (greatest := self._shares.who_makes_room()) is not None:
            (oldest,) = self._file.execute(
                "SELECT name FROM responses WHERE owner = ? ORDER BY number LIMIT 1", (greatest,)
            ).fetchone()
            self._delete(oldest)

    def _delete(self, name: str) -> bool:
        row = self._file.execute(
            "SELECT owner, length(data) FROM responses WHERE name = ?", (name,)
        ).fetchone()
        if row is None:
            return False
        self._file.execute("DELETE FROM responses WHERE name = ?", (name,))
        self._shares.add(row[0], -row[1], -1)
        return True

    def _measure(self) -> None:
        self._shares.clear()
        for owner, count, num_bytes in self._file.execute(
            "SELECT owner, count(*), sum(length(data)) FROM responses GROUP BY owner"
        ):
            self._shares.add(owner, num_bytes, count)
        self._is_measured = True


def _opened(path: Path) -> sqlite3.Connection:
    try:
        # Others on this machine have no business with what was said.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        file = sqlite3.connect(path, timeout=1.0, check_same_thread=False)
        version = _checked_version(file, path)
        changes = FROM_VERSION_1 if version == 1 else ()
        for statement in (*SETTINGS, "BEGIN IMMEDIATE", *changes, *TABLES):
            file.execute(statement)
        file.commit()
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"The file of --response-store cannot be used: {reason}. Name another file, or end the server "
            "that uses this one.",
            param="response_store",
        ) from None
    return file


def _checked_version(file: sqlite3.Connection, path: Path) -> int:
    """Of our tables; 0 if there are none. Leave the data of other programs, and of later versions, alone."""
    (is_used,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application_id,) = file.execute("PRAGMA application_id").fetchone()
    (version,) = file.execute("PRAGMA user_version").fetchone()
    if is_used and (application_id != APPLICATION_ID or version not in (1, VERSION)):
        file.close()
        raise ConfigError(
            f"{path.name} of --response-store is a database of something else, or of another version of "
            "Octavo. Name another file.",
            param="response_store",
        )
    return int(version) if is_used else 0  # A server may have been killed before it made its tables.
