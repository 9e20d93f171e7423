"""CoreTotals: what one core after the other counted, added up."""

from __future__ import annotations

import msgspec

from octavo.messages.result import CoreStats


class CoreTotals:
    """Counters go on where the core before stopped; gauges are those of the core that there is."""

    def __init__(self, num_blocks: int) -> None:
        """num_blocks: those that can be handed out."""
        self._num_blocks = num_blocks
        self._earlier = CoreStats()
        """What the cores before this one counted."""
        self.stats = CoreStats.idle(num_blocks)
        """With the last report."""

    def take(self, report: CoreStats) -> CoreStats:
        self.stats = report.after(self._earlier) if self._earlier.core_restarts else report
        return self.stats

    def core_lost(self) -> None:
        """The next one counts from 0."""
        self._earlier = msgspec.structs.replace(self.stats, core_restarts=self.stats.core_restarts + 1)
        self.stats = CoreStats.idle(self._num_blocks).after(self._earlier)
