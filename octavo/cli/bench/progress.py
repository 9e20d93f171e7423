"""A progress bar of finished requests with live output tokens per second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from octavo.cli.bench.measure import Outcome


class RequestBar:
    """Counts outcomes."""

    def __init__(self, progress: Progress, title: str, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total, speed="")
        self._began = time.monotonic()
        self._tokens = 0
        self._failed = 0

    def add(self, outcome: Outcome) -> None:
        self._tokens += outcome.num_output_tokens
        self._failed += outcome.error is not None
        speed = f"{self._tokens / max(time.monotonic() - self._began, 1e-9):.0f} tok/s"
        if self._failed:
            speed += f", {self._failed} failed"
        self._progress.update(self._task, advance=1, speed=speed)


@contextmanager
def request_bar(title: str, total: int) -> Iterator[RequestBar]:
    """Shown on stderr, so that stdout stays the report."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield RequestBar(progress, title, total)
