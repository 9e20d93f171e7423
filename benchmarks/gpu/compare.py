"""Both engines' numbers as one table: printed, and saved as the claim.

    python -m benchmarks.gpu.compare RESULTS.json ... --save benchmarks/results/h100.json

Numbers are compared within one session (one machine, one boot). Where the files hold several sessions with
both engines, the latest one counts; a pair from two sessions is shown and marked, and counts as a note. What
is asked for in seconds (the starts) takes each engine's latest number, wherever it is from.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.goals import Row, rows
from benchmarks.gpu.machine import commit
from benchmarks.gpu.results import Record, Sessions, read_sessions, rounded

OURS, PEER = "octavo", "vllm"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A row with both numbers, floor and target as ratios."""

    row: Row
    octavo: float
    peer: float
    floor: float | None
    target: float | None
    is_one_session: bool

    @property
    def ratio(self) -> float:
        return self.octavo / self.peer

    @property
    def share_of_limit(self) -> float | None:
        """1 is as fast as the machine allows."""
        limit = self.row.limit
        if limit is None:
            return None
        return limit / self.octavo if self.row.better == "lower" else self.octavo / limit

    @property
    def verdict(self) -> str:
        """'target', 'floor' or 'BEHIND': the best that is met; '' where nothing is asked."""
        if self._meets(self.target):
            return "target"
        if self._meets(self.floor):
            return "floor"
        return "BEHIND" if self.floor is not None else "not yet" if self.target is not None else ""

    def _meets(self, bound: float | None) -> bool:
        if bound is None:
            return False
        return self.ratio <= bound if self.row.better == "lower" else self.ratio >= bound


def main(argv: Sequence[str] | None = None) -> int:
    """The number of floors that are missed."""
    arguments = _parse(argv)
    sessions = read_sessions(arguments.files)
    compared = compare(sessions)
    print(table(compared))
    if arguments.save:
        document = claim(compared, sessions, arguments.commit or commit() or "unknown")
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        arguments.save.write_text(json.dumps(rounded(document), indent=1) + "\n")
    return sum(one.verdict == "BEHIND" for one in compared)


def compare(sessions: Sessions) -> list[Compared]:
    """All rows that both engines have numbers for."""
    in_time = sorted(sessions.values(), key=_started)
    found = (_compare_row(row, in_time) for row in rows())
    return [one for one in found if one is not None]


def table(compared: Sequence[Compared]) -> str:
    """For people."""
    head = ("", "shape", "metric", "octavo", "vLLM", "ratio", "floor", "target", "limit", "of limit", "")
    lines = [head, *(_cells(one) for one in compared)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in text)


def claim(compared: Sequence[Compared], sessions: Sessions, of_commit: str) -> dict[str, Any]:
    """For programs, and for the repository: what was measured, on what."""
    latest = max(sessions.values(), key=_started)
    versions = dict(latest.get("versions", {}))
    for session in sorted(sessions.values(), key=_started):
        for engine in (OURS, PEER):
            for record in session["engines"].get(engine, {}).values():
                versions[engine] = record.get("version")
    apart = [f"{one.row.workload} {one.row.shape.name}" for one in compared if not one.is_one_session]
    return {
        "commit": of_commit,
        "date": latest.get("date"),
        "machine": latest.get("machine"),
        "versions": versions,
        "results": [_result(one) for one in compared],
        **({"notes": [f"two sessions, not one: {', '.join(dict.fromkeys(apart))}"]} if apart else {}),
    }


def _compare_row(row: Row, in_time: list[dict[str, Any]]) -> Compared | None:
    pairs = [(_number(session, OURS, row), _number(session, PEER, row)) for session in in_time]
    together = [(mine, other) for mine, other in pairs if mine is not None and other is not None]
    if together and not row.are_seconds:
        octavo, peer = together[-1]
    else:
        all_ours = [mine for mine, _ in pairs if mine is not None]
        all_theirs = [other for _, other in pairs if other is not None]
        if not all_ours or not all_theirs:
            return None
        octavo, peer = all_ours[-1], all_theirs[-1]
        together = [pair for pair in together if pair == (octavo, peer)]
    unit = peer if row.are_seconds else 1.0
    return Compared(
        row=row,
        octavo=octavo,
        peer=peer,
        floor=None if row.floor is None else row.floor / unit,
        target=None if row.target is None else row.target / unit,
        is_one_session=bool(together),
    )


def _started(session: dict[str, Any]) -> str:
    return str(session["started"])


def _number(session: dict[str, Any], engine: str, row: Row) -> float | None:
    record: Record = session["engines"].get(engine, {}).get(row.shape.name, {})
    return row.read(record)


def _result(one: Compared) -> dict[str, Any]:
    return {
        "workload": one.row.workload,
        "shape": one.row.shape.name,
        "metric": one.row.metric,
        "better": one.row.better,
        "octavo": one.octavo,
        "peer": one.peer,
        "ratio": one.ratio,
        "limit": one.row.limit,
        "floor": one.floor,
        "target": one.target,
    }


def _cells(one: Compared) -> tuple[str, ...]:
    share = one.share_of_limit
    return (
        one.row.workload,
        one.row.shape.name,
        one.row.metric,
        number(one.octavo),
        number(one.peer),
        f"{one.ratio:.2f}" + ("" if one.is_one_session else "*"),
        "" if one.floor is None else f"{one.floor:.2f}",
        "" if one.target is None else f"{one.target:.2f}",
        "" if one.row.limit is None else number(one.row.limit),
        "" if share is None else f"{share:.0%}",
        one.verdict,
    )


def number(value: float) -> str:
    """Three digits that say something, no exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="result files of the engines' scripts")
    parser.add_argument("--save", type=Path, help="write the claim here")
    parser.add_argument("--commit", help="what was measured, where git cannot say")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
