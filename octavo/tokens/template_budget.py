"""What one rendering of a chat template may use: loop rounds, time, and the size of everything it builds.

Sizes are checked before the work is done, so an absurd wish costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

from octavo.base.clock import Clock

MAX_ROUNDS = 200_000
MAX_SECONDS = 2.0
"""Of processor time: whether a chat can be rendered must not depend on who else is busy."""
_WRITING_FACTOR = 8
_CLOCK_EVERY = 64
_SMALL = 32


class TemplateLimitError(Exception):
    """A template asked for more than it may have."""


class Budget:
    """Counts what a rendering uses. Belongs to one thread."""

    def __init__(self, max_chars: int, clock: Clock = time.thread_time) -> None:
        self.max_chars = max_chars
        self._rounds = 0
        self._written = 0
        self._clock = clock
        self._deadline = clock() + MAX_SECONDS

    def tick(self) -> None:
        """Count one loop round or macro call."""
        self._rounds += 1
        if self._rounds > MAX_ROUNDS:
            raise TemplateLimitError(f"it ran more than {MAX_ROUNDS} loop rounds")
        if self._rounds % _CLOCK_EVERY == 0 and self._clock() > self._deadline:
            raise TemplateLimitError(f"it ran longer than {MAX_SECONDS:g} s")

    def write(self, num_chars: int) -> None:
        """Count text put out, also into variables and macros, whence it may be put out again."""
        self._written += num_chars
        if self._written > _WRITING_FACTOR * self.max_chars:
            raise TemplateLimitError(f"it wrote more than {_WRITING_FACTOR * self.max_chars} characters")

    def check(self, num_chars: int) -> None:
        """Refuse to build one value of that size."""
        if num_chars > self.max_chars:
            raise TemplateLimitError(f"it built more than {self.max_chars} characters")

    def size_of(self, value: Any) -> int:
        """Return about how long `value` is as text; refuse it as soon as it is too long."""
        if isinstance(value, str):
            self.check(len(value))
            return len(value)
        total, waiting = 0, [value]
        while waiting:
            item = waiting.pop()
            total += len(item) if isinstance(item, str) else _SMALL
            self.check(total)
            if isinstance(item, dict):
                waiting.extend(item)
                waiting.extend(item.values())
            elif isinstance(item, list | tuple | set | frozenset):
                waiting.extend(item)
        return total


_current: ContextVar[Budget] = ContextVar("octavo_template_budget")


def current_budget() -> Budget:
    """The budget of the rendering that runs in this thread."""
    return _current.get()


def run_limited(budget: Budget, render: Callable[[], Iterable[str]]) -> str:
    """Collect a template's output under `budget`. Raises TemplateLimitError."""
    token = _current.set(budget)
    try:
        parts, size = [], 0
        for part in render():
            size += len(part)
            budget.check(size)
            parts.append(part)
        return "".join(parts)
    finally:
        _current.reset(token)
