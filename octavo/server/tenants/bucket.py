"""Bucket: what may be taken per minute, with a burst of a minute's worth (token bucket, Turner 1986).

It may be overdrawn: what an answer takes is known only at its end. Who overdrew waits until it is paid back.
"""

from __future__ import annotations

MINUTE_S = 60.0


class Bucket:
    """Full at the start. The rate is given with each call: it may change while the server runs."""

    def __init__(self, per_minute: float, now: float) -> None:
        self._level = per_minute
        self._per_minute = per_minute
        self._at = now

    def wait_s(self, per_minute: float, least: float, now: float) -> float:
        """Seconds until at least `least` is there, at most a minute's worth; 0 if it is."""
        self._fill(per_minute, now)
        return max(0.0, (min(least, per_minute) - self._level) * MINUTE_S / per_minute)

    def take(self, amount: float) -> None:
        self._level -= amount

    def _fill(self, per_minute: float, now: float) -> None:
        if per_minute > self._per_minute:
            # Whoever is given more has it at once.
            self._level += per_minute - self._per_minute
        self._per_minute = per_minute
        self._level = min(per_minute, self._level + (now - self._at) * per_minute / MINUTE_S)
        self._at = now
