"""StallWatch: how long a core has been silent, and whether that is still its ordinary way."""

from __future__ import annotations

TICK_S = 0.25
"""How often silence is looked at."""
PING_S = 0.5
"""Who is silent for so long is asked for a sign of life."""
ALARM_S = 4.0
"""Silence that is never ordinary, unless steps of this core are known to take longer."""
KEPT_SHARE = 0.99
"""How much of the longest silence is remembered from one message to the next."""


class StallWatch:
    """A core answers pings between steps, with work or without. So silence means that no step ends.

    Time is counted in ticks, each of which weighs little however late it comes: a server that was
    stopped itself, or whose event loop was held up, does not blame its core. Runs per message.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._longest_s = 0.0
        self.silent_s = 0.0
        self.doing: str | None = None
        """What the core said it would do before it fell silent."""

    def heard(self, doing: str | None) -> None:
        """A message came. `doing`: it announces a long operation."""
        if self.doing is None:
            self._longest_s = max(self.silent_s, self._longest_s * KEPT_SHARE)
        self.silent_s = 0.0
        self.doing = doing

    def tick(self, elapsed_s: float) -> None:
        """So much time went by since the last tick."""
        self.silent_s += min(elapsed_s, 2 * TICK_S)

    @property
    def is_stalled(self) -> bool:
        """Silent for longer than this core's steps explain: send requests elsewhere."""
        if self.doing is not None:
            return False
        return self.silent_s > max(ALARM_S, min(2 * self._longest_s, self._timeout_s / 2))

    @property
    def is_stuck(self) -> bool:
        """Silent for so long that only a restart helps."""
        return self.doing is None and self.silent_s > self._timeout_s
