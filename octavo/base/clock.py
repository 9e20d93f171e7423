"""Monotonic time. Everything that decides by time takes a `Clock`, so that a simulation can own it."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds that never go back. Only differences mean something."""

monotonic: Clock = time.monotonic
