"""What keeps logs small: one place that shouts is quietened, a warning meant once is said once."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from octavo.base.clock import Clock, monotonic
from octavo.observe.request_context import current_request_id

MAX_KNOWN = 1024
"""Places and once-keys remembered; beyond it they share one entry."""


@dataclass(slots=True)
class _Place:
    window_start: float
    num_shown: int = 0
    num_suppressed: int = 0


class RateLimit(logging.Filter):
    """Lets `burst` lines per source line through in each window, then says how many were not. Lines below
    `level` always pass."""

    def __init__(
        self,
        *,
        burst: int = 20,
        window_s: float = 10.0,
        level: int = logging.WARNING,
        clock: Clock = monotonic,
    ) -> None:
        super().__init__()
        self._level = level
        self._burst = burst
        self._window_s = window_s
        self._clock = clock
        self._places: dict[tuple[str, int], _Place] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < self._level:
            return True
        with self._lock:
            return self._admit(record)

    def _admit(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        key = (record.pathname, record.lineno)
        if key not in self._places and len(self._places) >= MAX_KNOWN:
            key = ("", 0)
        place = self._places.setdefault(key, _Place(now))
        if now - place.window_start >= self._window_s:
            suppressed = place.num_suppressed
            self._places[key] = place = _Place(now)
            if suppressed:
                record.msg = f"{record.getMessage()} ({suppressed} like it were suppressed)"
                record.args = ()
        if place.num_shown >= self._burst:
            place.num_suppressed += 1
            return False
        place.num_shown += 1
        return True


class StampRequest(logging.Filter):
    """Writes the current request's id into the record, in the task that logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "request_id"):
            record.request_id = current_request_id()
        return True


_said: set[tuple[str, str]] = set()


def warn_once(logger: logging.Logger, key: str, message: str) -> None:
    """Warn the first time this logger meets `key`. At most MAX_KNOWN keys are ever told apart."""
    entry = (logger.name, key)
    if entry in _said or len(_said) >= MAX_KNOWN:
        return
    _said.add(entry)
    logger.warning("%s", message)
