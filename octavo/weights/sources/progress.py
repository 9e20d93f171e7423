"""How a download tells what it is doing. The command line brings its own; here are two plain ones."""

from __future__ import annotations

from typing import Any, Protocol


class Progress(Protocol):
    """One bar at a time: start, advance many times, finish. `total` is None when nobody knows it."""

    def start(self, label: str, total: int | None = None) -> None: ...

    def advance(self, num_bytes: int) -> None: ...

    def finish(self) -> None: ...


class NoProgress:
    """Says nothing."""

    def start(self, label: str, total: int | None = None) -> None:
        del label, total

    def advance(self, num_bytes: int) -> None:
        del num_bytes

    def finish(self) -> None:
        return


class TqdmProgress:
    """A tqdm bar on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, label: str, total: int | None = None) -> None:
        from tqdm import tqdm

        self.finish()
        self._bar = tqdm(desc=label, total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=False)

    def advance(self, num_bytes: int) -> None:
        if self._bar is not None:
            self._bar.update(num_bytes)

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
