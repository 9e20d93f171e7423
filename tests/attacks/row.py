"""Row: one attack of the list, what it must lead to, and what may be felt of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.attacks.arena import Arena

Attack = Callable[[Arena], None]
"""Does it, and raises AssertionError if what comes back is not what is expected."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One case of the list in RELIABILITY. Several cases may share an id."""

    id: str
    name: str
    """What is sent or broken, in a few words."""
    expected: str
    """What must come of it, in a few words; `attack` checks it."""
    attack: Attack
    budget_ms: int = 2000
    """Until the attack has its answer, on a machine with nothing else to do."""
    stall_ms: int = 50
    """How long the event loop may be busy in one piece."""
    with_victim: bool = False
    """Whether somebody else's streams run meanwhile, which must be the golden ones."""
    only_full: bool = False
    """Too heavy for the ordinary suite even at small size: runs under `make attacks`."""
    may_restart: bool = False
    """Whether the engine core may be started anew by it."""
    allowed_log: tuple[str, ...] = ()
    """Texts of lines at ERROR that belong to it."""


def case(id: str, name: str, attack: Attack, expected: str = "400, the parameter named", **more: Any) -> Row:
    """A row in few words."""
    return Row(id=id, name=name, expected=expected, attack=attack, **more)


@dataclass(frozen=True, kw_only=True)
class NotThere:
    """A row of the list about something that Octavo does not have yet. Never counted as passed."""

    id: str
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one row."""

    row: Row
    problems: list[str]
    seconds: float
    stall_ms: float
    """How long the event loop was busy in one piece, at most."""
    restarts: int
    leaked_blocks: int
    num_victims: int
    """Streams of the victim that were the golden ones."""

    @property
    def passed(self) -> bool:
        return not self.problems
