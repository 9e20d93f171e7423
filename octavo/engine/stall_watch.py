"""StallWatch: how long a core has been silent, and whether that is still its ordinary way."""

from __future__ import annotations

from collections import defaultdict, deque
from functools import partial

TICK_S = 0.25
"""How often silence is looked at."""
PING_S = 0.5
"""Who is silent for so long is asked for a sign of life."""
ALARM_S = 4.0
"""Silence that is never ordinary, unless steps of this core are known to take longer."""
NUM_REMEMBERED = 16
"""Steps of a size by which the next one is judged."""


class StallWatch:
    """A core answers pings between steps, with work or without. So silence means that no step ends.

    How long steps take is remembered by their size (1, 2 to 3, 4 to 7, ... tokens): after an hour of short
    ones the next long prompt of a slow machine is still no stall. Time is counted in ticks, each of which
    weighs little however late it comes: a server that was stopped itself, or whose event loop was held up,
    does not blame its core. Runs per message.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._steps_s: defaultdict[int, deque[float]] = defaultdict(partial(deque, maxlen=NUM_REMEMBERED))
        """By size, what the last ones took."""
        self._usual_s: dict[int, float] = {}
        """By size, the longest of these but one: a single one may have been a stall, too."""
        self.silent_s = 0.0
        self.doing: str | None = None
        """What the core said it would do before it fell silent."""

    def heard(self, doing: str | None = None, *, step_tokens: int = 0) -> None:
        """A message came. `doing`: it announces a long operation; `step_tokens`: it reports such a step."""
        if step_tokens:
            size = step_tokens.bit_length()
            steps_s = self._steps_s[size]
            steps_s.append(self.silent_s)
            self._usual_s[size] = sorted(steps_s)[-2] if len(steps_s) > 1 else 0.0
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
        usual_s = max(self._usual_s.values(), default=0.0)
        return self.silent_s > min(2 * usual_s, self._timeout_s / 2)

    @property
    def is_stuck(self) -> bool:
        """Silent for so long that only a restart helps."""
        return self.doing is None and self.silent_s > self._timeout_s
