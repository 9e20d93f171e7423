"""Recorder: runs inputs one by one and keeps those that fail, however hard the process falls."""

from __future__ import annotations

import hashlib
import json
import mmap
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz.target import Run

HERE = "/tests/fuzz/"
STATS_EVERY_S = 1.0


class Recorder:
    """Files in `folder`: `current` is the input that runs, `stats.json` what came so far, `failures/` the
    inputs that failed with a traceback beside each.
    """

    def __init__(self, run: Run, folder: Path, max_bytes: int) -> None:
        self._run = run
        self._folder = folder
        self._failures = folder / "failures"
        self._failures.mkdir(parents=True, exist_ok=True)
        self._current = _shared_file(folder / "current", 8 + max_bytes)
        self._began = time.monotonic()
        self._saved = self._began
        self._seen: set[str] = set()
        self._max_bytes = max_bytes
        self.runs = 0
        self.slowest_s = 0.0

    def __call__(self, data: bytes) -> None:
        data = data[: self._max_bytes]
        # The file outlives a process that dies in native code.
        self._current[:8] = len(data).to_bytes(8, "little")
        self._current[8 : 8 + len(data)] = data
        began = time.monotonic()
        try:
            self._run(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # Panics of Rust libraries are no Exception.
            self._keep(data, error)
        now = time.monotonic()
        self.slowest_s = max(self.slowest_s, now - began)
        self.runs += 1
        if now - self._saved > STATS_EVERY_S:
            self.save()

    def save(self) -> None:
        self._saved = time.monotonic()
        stats = {"runs": self.runs, "seconds": self._saved - self._began, "slowest_s": self.slowest_s}
        part = self._folder / "stats.part"
        part.write_text(json.dumps(stats))
        part.replace(self._folder / "stats.json")

    def _keep(self, data: bytes, error: BaseException) -> None:
        """One input for each place that raises."""
        place = _place(error)
        if place in self._seen:
            return
        self._seen.add(place)
        keep_failure(self._failures, data, f"{type(error).__name__} at {place}", traceback.format_exc())


def keep_failure(folder: Path, data: bytes, what: str, story: str) -> None:
    name = hashlib.sha256(data).hexdigest()[:16]
    (folder / f"{name}.input").write_bytes(data)
    (folder / f"{name}.json").write_text(json.dumps({"what": what, "story": story[-8000:]}, indent=1))


def failures_in(folder: Path) -> list[dict[str, Any]]:
    """All that were kept: input, what, story."""
    found = []
    for path in sorted((folder / "failures").glob("*.json")):
        found.append({"input": str(path.with_suffix(".input")), **json.loads(path.read_text())})
    return found


def current_input(folder: Path) -> bytes:
    """What a process was at when it died."""
    raw = (folder / "current").read_bytes()
    return raw[8 : 8 + int.from_bytes(raw[:8], "little")]


def _place(error: BaseException) -> str:
    """The innermost line of Octavo, or of the target where it was a check of its own that failed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/octavo/" in frame.filename or HERE in frame.filename]
    frame = (ours or frames)[-1]
    return f"{'/'.join(Path(frame.filename).parts[-3:])}:{frame.lineno}"


def _shared_file(path: Path, size: int) -> mmap.mmap:
    with path.open("w+b") as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)
