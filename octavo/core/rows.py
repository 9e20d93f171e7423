"""Rows: the fixed places on the workers, each owned by one request at a time."""

from __future__ import annotations

from collections.abc import Iterable

from octavo.base.errors import EngineError


class Rows:
    """Hands out row numbers and remembers which ended rows the workers have not heard of.

    A step ends rows before it fills new ones, so a row can be ended and given away in one step.
    """

    def __init__(self, num_rows: int) -> None:
        self._owners: list[str | None] = [None] * num_rows
        self._free = list(range(num_rows - 1, -1, -1))
        self._ended: list[int] = []

    @property
    def has_free(self) -> bool:
        return bool(self._free)

    @property
    def has_ended(self) -> bool:
        """The workers still have to hear of ended rows."""
        return bool(self._ended)

    def acquire(self, owner: str) -> int:
        row = self._free.pop()
        self._owners[row] = owner
        return row

    def release(self, row: int) -> None:
        assert self._owners[row] is not None, f"row {row} was released twice"
        self._owners[row] = None
        self._free.append(row)
        self._ended.append(row)

    def take_ended(self) -> list[int]:
        """Rows that ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def tell_again(self, rows: Iterable[int]) -> None:
        """The step that told of these ended rows failed; say it once more unless they are in use again."""
        known = set(self._ended)
        self._ended.extend(row for row in rows if self._owners[row] is None and row not in known)

    def check(self, owners: dict[int, str]) -> None:
        """Prove that exactly these requests own these rows."""
        held = {row: owner for row, owner in enumerate(self._owners) if owner is not None}
        if held != owners:
            raise EngineError(f"Rows are owned by {held}, running requests say {owners}.")
        if len(self._free) + len(held) != len(self._owners) or set(self._free) & held.keys():
            raise EngineError("The free rows do not add up.")
