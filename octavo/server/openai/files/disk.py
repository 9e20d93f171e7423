"""Disk: the folder where files and batches live, with the database that describes them.

The folder is opened when something is first kept in it and belongs to one server at a time. Without a
path it is a private one that ends with the server. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from octavo.base.errors import ConfigError, EngineError, ErrorCode, RequestError
from octavo.config.server import ServerConfig

logger = logging.getLogger(__name__)

PRIVATE = "octavo-files-"
"""What names of private folders begin with."""
CLAIMED_WITHIN_S = 60.0
VERSION = 1
"""Of the tables; a folder written with others is refused."""

TABLES = """
CREATE TABLE files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    purpose TEXT NOT NULL,
    filename TEXT NOT NULL,
    num_bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
);
CREATE INDEX files_of_owner ON files (owner, seq);
CREATE TABLE batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    output_file_id TEXT NOT NULL,
    error_file_id TEXT NOT NULL,
    record BLOB NOT NULL
);
CREATE INDEX batches_of_owner ON batches (owner, seq);
CREATE INDEX batches_by_status ON batches (status);
"""

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
SQLITE_ERRORS = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}

CONTENT_NAME = re.compile(r"file-[0-9a-f]{32}(\.part)?")
"""Names of contents, made by us and never by a client; .part is one that is still being received."""


@contextmanager
def writing() -> Iterator[None]:
    """Raises STORAGE_FAILED where the disk takes no more."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if not _is_trouble(error):
            raise
        logger.error("The disk cannot be written to: %s", _reason(error))
        raise EngineError(
            "The server cannot write to its disk now. Try again later.", code=ErrorCode.STORAGE_FAILED
        ) from error


class Disk:
    """One folder. All methods may be called from any thread."""

    def __init__(self, folder: Path | None) -> None:
        self._wish = folder
        self._lock = threading.RLock()
        self._folder: Path | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._claim: FileLock | None = None
        self._connection: sqlite3.Connection | None = None
        self._is_closed = False

    @property
    def is_lasting(self) -> bool:
        """Whether it outlives the server."""
        return self._wish is not None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The database, for one change that happens wholly or not at all."""
        with self._lock, writing():
            connection = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite gives some up by itself.
                    connection.execute("ROLLBACK")
                raise

    def content(self, file_id: str, *, is_part: bool = False) -> Path:
        """Where the bytes of a file are. Raises RequestError for an id that is none of ours."""
        name = f"{file_id}.part" if is_part else file_id
        if CONTENT_NAME.fullmatch(name) is None:
            raise RequestError("There is no such file.", code=ErrorCode.NOT_FOUND)
        if self._connection is None:  # Without the lock, which a thread may hold while it writes.
            self.open()
        assert self._folder is not None, "it is open"
        return self._folder / "contents" / name

    def contents(self) -> list[Path]:
        """All contents, known to the database or not."""
        with self._lock:
            self._opened()
            assert self._folder is not None, "it is open"
            found = (self._folder / "contents").iterdir()
            return [path for path in found if CONTENT_NAME.fullmatch(path.name)]

    def open(self) -> None:
        """Claim the folder and open the database now. Raises ConfigError if that cannot be."""
        with self._lock:
            self._opened()

    def close(self) -> None:
        """Let the folder go; a private one is removed. Later calls fail with SHUTTING_DOWN."""
        with self._lock:
            self._is_closed = True
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if self._claim is not None:
                self._claim.release()
            if self._temporary is not None:
                self._temporary.cleanup()

    def _opened(self) -> sqlite3.Connection:
        if self._is_closed:
            raise EngineError("The server is shutting down.", code=ErrorCode.SHUTTING_DOWN)
        if self._connection is None:
            try:
                self._folder = self._make_folder()
                self._claim = _claimed(self._folder)
                self._connection = _connected(self._folder / "octavo.sqlite3")
            except (OSError, sqlite3.Error) as error:
                raise ConfigError(
                    f"The folder of files_dir cannot be used: {_reason(error)}. Choose another --files-dir.",
                    param="files_dir",
                ) from None
            finally:
                if self._connection is None and self._claim is not None:
                    self._claim.release()
        return self._connection

    def _make_folder(self) -> Path:
        if self._wish is None:
            self._temporary = tempfile.TemporaryDirectory(prefix=PRIVATE)
            folder = Path(self._temporary.name)
        else:
            folder = self._wish
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "contents").mkdir(mode=0o700, exist_ok=True)
        return folder


def files_folder(server: ServerConfig) -> Path | None:
    """The folder that the options name."""
    return None if server.files_dir is None else Path(server.files_dir).expanduser()


def check_files_dir(server: ServerConfig) -> None:
    """Find out before the model is loaded that the folder cannot be used. Raises ConfigError.

    And take away what servers that were killed have left: it is their clients' files.
    """
    remove_abandoned()
    folder = files_folder(server)
    if folder is not None:
        disk = Disk(folder)
        disk.open()
        disk.close()


def remove_abandoned() -> None:
    """Private folders of this user that no server claims any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PRIVATE}*"):
        claim = FileLock(folder / "lock", timeout=0)
        try:
            found = folder.lstat()
            is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
            # One that was just made has not been claimed yet.
            if not is_ours or time.time() - found.st_mtime < CLAIMED_WITHIN_S:
                continue
            claim.acquire()
        except (OSError, Timeout):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        claim.release()


def _claimed(folder: Path) -> FileLock:
    """Ours until it is released or this process ends, however it ends."""
    claim = FileLock(folder / "lock", timeout=0)
    try:
        claim.acquire()
    except Timeout:
        raise ConfigError(
            "Another server uses the folder of files_dir. Stop it, or choose another --files-dir.",
            param="files_dir",
        ) from None
    return claim


def _connected(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # What a client was told must outlive a power cut.
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version != VERSION:
        connection.close()
        raise ConfigError(
            f"The folder of files_dir was written by another version of Octavo (its tables are {version}, "
            f"ours {VERSION}). Choose another --files-dir.",
            param="files_dir",
        )
    return connection


def _is_trouble(error: OSError | sqlite3.OperationalError) -> bool:
    """With the disk, and not with us."""
    if isinstance(error, OSError):
        return error.errno in DISK_ERRORS
    return error.sqlite_errorcode & 0xFF in SQLITE_ERRORS


def _reason(error: OSError | sqlite3.Error) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "unknown reason").lower()
    return str(error)
