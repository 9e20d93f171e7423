"""Recorder: runs inputs one by one and keeps those that fail, however hard the process falls."""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from tests.fuzz.target import Run

HERE = "/tests/fuzz/"
HEAD = struct.Struct("<QddQ")


class Progress(NamedTuple):
    """What a process has done: in a file that outlives it, even where it dies in native code."""

    runs: int
    slowest_s: float
    cpu_s: float
    current: bytes
    """The input that it was at."""

    @classmethod
    def of(cls, folder: Path) -> Progress:
        path = folder / "progress"
        raw = path.read_bytes() if path.exists() else bytes(HEAD.size)
        runs, slowest_s, cpu_s, length = HEAD.unpack_from(raw)
        return cls(runs, slowest_s, cpu_s, raw[HEAD.size : HEAD.size + length])


class Recorder:
    """Files in `folder`: `progress`, and under `failures/` inputs that failed, a traceback beside each."""

    def __init__(self, run: Run, folder: Path, max_bytes: int) -> None:
        self._run = run
        self._failures = folder / "failures"
        self._failures.mkdir(parents=True, exist_ok=True)
        self._progress = _shared_file(folder / "progress", HEAD.size + max_bytes)
        self._max_bytes = max_bytes
        self._seen: set[str] = set()
        self._runs = 0
        self._slowest_s = 0.0

    def __call__(self, data: bytes) -> None:
        data = data[: self._max_bytes]
        self._progress[HEAD.size : HEAD.size + len(data)] = data
        HEAD.pack_into(self._progress, 0, self._runs, self._slowest_s, time.process_time(), len(data))
        began = time.monotonic()
        try:
            self._run(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # Panics of Rust libraries are no Exception.
            self._keep(data, error)
        self._slowest_s = max(self._slowest_s, time.monotonic() - began)
        self._runs += 1

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
