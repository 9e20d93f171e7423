"""StallWatch: how long a core has been silent, and whether that is still its ordinary way."""

from __future__ import annotations

from collections import deque

TICK_S = 0.25
"""How often silence is looked at."""
PING_S = 0.5
"""Who is silent for so long is asked for a sign of life."""
ALARM_S = 4.0
"""Silence that is never ordinary, unless steps of this core are known to take longer."""
NUM_REMEMBERED = 64
"""Steps by which the next one is judged."""


class StallWatch:
    """A core answers pings between steps, with work or without. So silence means that no step ends.

    Time is counted in ticks, each of which weighs little however late it comes: a server that was
    stopped itself, or whose event loop was held up, does not blame its core. Runs per message.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._steps_s: deque[float] = deque(maxlen=NUM_REMEMBERED)
        self.silent_s = 0.0
        self.doing: str | None = None
        """What the core said it would do before it fell silent."""

    def heard(self, doing: str | None = None, *, is_step: bool = False) -> None:
        """A message came. `doing`: it announces a long operation; `is_step`: it reports a step."""
        if is_step:
            self._steps_s.append(self.silent_s)
        self.silent_s = 0.0
        self.doing = doing

    def tick(self, elapsed_s: float) -> None:
        """So much time went by since the last tick."""
        self.silent_s += min(elapsed_s, 2 * TICK_S)

    @property
    def is_stalled(self) -> bool:
        """Silent for longer than this core's steps explain: send requests elsewhere."""
        if self.doing is not None or self.silent_s <= ALARM_S:
            return False
        return self.silent_s > min(2 * self._usual_s, self._timeout_s / 2)

    @property
    def _usual_s(self) -> float:
        """The longest steps of late, but not a single one: that may have been a stall, too."""
        return sorted(self._steps_s)[-2] if len(self._steps_s) > 1 else 0.0

    @property
    def is_stuck(self) -> bool:
        """Silent for so long that only a restart helps."""
        return self.doing is None and self.silent_s > self._timeout_s
