"""RestartLimits: whether a core may be started again, and after which pause."""

from __future__ import annotations

SECOND_PAUSE_S = 1.0
MAX_PAUSE_S = 30.0


class RestartLimits:
    """At most `max_restarts` in any `window_s` seconds. The first is at once, then pauses double."""

    def __init__(self, max_restarts: int, window_s: float) -> None:
        self._max_restarts = max_restarts
        self._window_s = window_s
        self._times: list[float] = []

    def next_pause(self, now: float) -> float | None:
        """Seconds to wait before the restart that is asked for now; None if it is one too many."""
        self._times = [time for time in self._times if now - time < self._window_s]
        num_before = len(self._times)
        if num_before >= self._max_restarts:
            return None
        self._times.append(now)
        return 0.0 if num_before == 0 else min(SECOND_PAUSE_S * 2.0 ** (num_before - 1), MAX_PAUSE_S)
