"""Journal: a file of entries that survives an end at any moment. It is its own record of what is done.

Every entry is written as soon as there is one, so a killed process loses none; the disk itself is made
to keep them at most once in SYNC_S, so a power cut loses the last seconds, and those lines run again.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from octavo.base.clock import monotonic
from octavo.server.openai.batches.entries import Entry, EntryKey

SYNC_S = 1.0


class Journal:
    """Appends entries. May be used from any thread. Opening it drops an entry that was cut short.

    Raises BlockingIOError while somebody else has it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            raise
        self._size = _end_of_last_entry(path)
        os.ftruncate(self._fd, self._size)
        self._synced = monotonic()

    def append(self, entry: Entry) -> None:
        data = memoryview(msgspec.json.encode(entry) + b"\n")
        with self._lock:
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(self._fd, data[written:], self._size + written)
            except OSError:
                os.ftruncate(self._fd, self._size)  # Half an entry would spoil the next one.
                raise
            self._size += len(data)
            if monotonic() - self._synced > SYNC_S:
                self._sync()

    def close(self) -> None:
        """Everything is on the disk afterwards."""
        with self._lock:
            if self._fd >= 0:
                self._sync()
                os.close(self._fd)
                self._fd = -1

    def _sync(self) -> None:
        os.fsync(self._fd)
        self._synced = monotonic()


def finished_lines(path: Path) -> Iterator[EntryKey]:
    """Which lines have an entry in the journal at `path`."""
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(EntryKey)
    with path.open("rb") as file:
        for data in file:
            if data.endswith(b"\n"):
                yield decoder.decode(data)


def _end_of_last_entry(path: Path) -> int:
    """Bytes up to and with the last line break."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 2**16)
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                return start + place + 1
            end = start
    return 0
