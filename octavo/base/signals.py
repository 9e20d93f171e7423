"""Signals that mean nothing to us."""

from __future__ import annotations

import signal


def ignore(*numbers: signal.Signals) -> None:
    """What would end the process by default does nothing. Children inherit it."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
