"""The file that measurements are kept in: rewritten after every one, so that nothing is lost.

    {"sessions": {NAME: SESSION}}
    SESSION = {"date", "started", "machine", "versions", "check", "engines": {ENGINE: {SHAPE: RECORD}}}
    RECORD = {"version", "starts": [...], "W1": {...}, ..., "profile": {...}}

A session is a machine since its boot. Files of several sessions merge by taking all their parts.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import machine_facts, session_name, software_versions

Record = dict[str, Any]
Sessions = dict[str, dict[str, Any]]

DIGITS = 5


class ResultFile:
    """This session's part of a result file. One process at a time writes."""

    def __init__(self, path: Path, session: str | None = None) -> None:
        self.path = path
        self._name = session or session_name()

    def put(self, engine: str, shape: str, key: str, value: Any) -> None:
        """Set one entry of an engine's record of a shape. A failure does not replace numbers."""
        sessions = self._read()
        _merge_record(_record(self._session(sessions), engine, shape), {key: value})
        self._write(sessions)

    def add_start(self, engine: str, shape: str, start: Record) -> None:
        """Append to the starts of an engine, each of which may be cold or warm."""
        sessions = self._read()
        _record(self._session(sessions), engine, shape).setdefault("starts", []).append(start)
        self._write(sessions)

    def put_session(self, key: str, value: Any) -> None:
        """Set an entry that belongs to no engine alone."""
        sessions = self._read()
        self._session(sessions)[key] = value
        self._write(sessions)

    def _session(self, sessions: Sessions) -> dict[str, Any]:
        if self._name not in sessions:
            sessions[self._name] = {
                "date": time.strftime("%Y-%m-%d"),
                "started": now(),
                "machine": machine_facts(),
                "versions": software_versions(),
                "engines": {},
            }
        return sessions[self._name]

    def _read(self) -> Sessions:
        return read_sessions([self.path]) if self.path.exists() else {}

    def _write(self, sessions: Sessions) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps({"sessions": rounded(sessions)}, indent=1) + "\n")
        os.replace(fresh, self.path)


def read_sessions(paths: Iterable[Path]) -> Sessions:
    """All sessions of all files; of an entry that two files have, the later file's counts."""
    merged: Sessions = {}
    for path in paths:
        for name, session in json.loads(path.read_text())["sessions"].items():
            mine = merged.setdefault(name, {"engines": {}})
            mine.update({key: value for key, value in session.items() if key != "engines"})
            for engine, shapes in session["engines"].items():
                for shape, record in shapes.items():
                    _merge_record(_record(mine, engine, shape), record)
    return merged


def rounded(value: Any) -> Any:
    """Floats to `DIGITS` significant digits, in any nest of dicts and lists."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def _record(session: dict[str, Any], engine: str, shape: str) -> Record:
    record: Record = session["engines"].setdefault(engine, {}).setdefault(shape, {})
    return record


def _merge_record(mine: Record, other: Record) -> None:
    for key, value in other.items():
        if key == "starts":
            known = mine.setdefault("starts", [])
            known += [start for start in value if start not in known]
        elif not (_is_failure(value) and key in mine):
            mine[key] = value


def _is_failure(value: Any) -> bool:
    return isinstance(value, dict) and "error" in value
