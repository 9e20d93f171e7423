"""`octavo pull`: fetch a model now, so that serving it later needs no network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.cli.command import Command
from octavo.cli.streams import user_path
from octavo.cli.units import show_bytes
from octavo.config.flags import FlagParser, add_config_options, config_from

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID


class PullProgress:
    """The downloader's progress on a rich display: one bar at a time, a spinner where no total is known."""

    def __init__(self, bars: RichBars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, label: str, total: int | None = None) -> None:
        self.finish()
        self._task = self._bars.add_task(label, total=total)

    def advance(self, num_bytes: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, num_bytes)

    def finish(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


def _add_arguments(parser: FlagParser) -> None:
    parser.add_argument("--list", action="store_true", help="List the short names of known models.")
    add_config_options(parser, ("model",))


def _run(parsed: argparse.Namespace) -> int:
    if parsed.list:
        from octavo.weights.sources.aliases import ALIASES

        width = max(map(len, ALIASES))
        print("\n".join(f"{alias.name.ljust(width)}  {alias.about}" for alias in ALIASES.values()))
        return 0
    model = config_from(parsed).model
    folder = user_path(model.download_dir) if model.download_dir else None
    path = _fetch(model.model, model.revision, folder)
    print(f"{path}  {show_bytes(stored_bytes(path))}")
    return 0


def _fetch(model: str, revision: str | None, folder: Path | None) -> Path:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from octavo.weights.sources.find import find_model

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        return find_model(model, revision=revision, download_dir=folder, progress=PullProgress(bars))


def stored_bytes(path: Path) -> int:
    """Size of a model's file, or of all files in its folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


COMMAND = Command(
    description="Download a model, or check that it is here, and print where it lies and its size.",
    add_arguments=_add_arguments,
    run=_run,
)
