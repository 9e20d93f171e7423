"""A log handler that never blocks: lines wait in a bounded queue, a thread writes them.

When the reader of our output stops, the queue fills and lines are dropped and counted; serving goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TextIO

MAX_WAITING = 10_000


class QueuedHandler(logging.Handler):
    """Formats in the caller, writes in its own thread."""

    def __init__(self, stream: TextIO, max_waiting: int = MAX_WAITING) -> None:
        super().__init__()
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(max_waiting)
        self._num_dropped = 0
        self._writer = threading.Thread(target=self._write, name="log-writer", daemon=True)
        self._writer.start()

    @property
    def num_dropped(self) -> int:
        """Lines dropped since the last one that got through."""
        return self._num_dropped

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        if self._num_dropped:
            line = f"{line}\n({self._num_dropped} log lines were dropped: nobody read them)"
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._num_dropped += 1
        else:
            self._num_dropped = 0

    def close(self) -> None:
        """Write what waits, for at most a second, and stop."""
        try:
            self._lines.put_nowait(None)
        except queue.Full:
            pass  # Nobody reads our output; the thread is a daemon and ends with the process.
        else:
            self._writer.join(timeout=1.0)
        super().close()

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                # The pipe is closed. Nothing can be said about it, and nothing depends on it.
                continue
