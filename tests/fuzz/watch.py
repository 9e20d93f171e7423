"""Watch: ends the process whose input takes too long, even in the midst of native code.

What counts is processor time: on a busy machine everything takes long by the clock. What waits for ever uses
none, so there is a limit by the clock, too, far beyond.
"""

from __future__ import annotations

import faulthandler
import signal

from tests.fuzz.target import Run

WAIT_FACTOR = 20
"""How much longer an input may take by the clock."""


def watched(run: Run, limit_s: float) -> Run:
    # The default action of the signal comes behind the traceback: the process ends.
    faulthandler.register(signal.SIGPROF, chain=True)

    def watched_run(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        try:
            run(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    return watched_run
