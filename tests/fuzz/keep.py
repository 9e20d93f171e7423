"""Keep what a campaign found: `python -m tests.fuzz.keep [--work build/fuzz] [TARGET ...]`.

Of a target's corpus, the smallest inputs that run lines of Octavo which neither the seeds nor what is kept
already runs go to tests/fuzz/corpus/; a few kilobytes for each target, so that the short form has them too.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.target import CORPUS, NAMES, Run, find, inputs_of

MAX_BYTES = 12 * 1024
"""For all that is kept of one target."""
MAX_INPUTS = 40
MAX_LOOKED_AT = 3000

Lines = set[tuple[str, int]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("targets", nargs="*", default=[])
    parser.add_argument("--work", type=Path, default=Path("build/fuzz"))
    wish = parser.parse_args()
    logging.disable(logging.CRITICAL)
    for name in wish.targets or NAMES:
        if (wish.work / name / "corpus").is_dir():
            sys.stdout.write(f"{name}: {_keep(name, wish.work / name / 'corpus')} more inputs\n")


def _keep(name: str, found: Path) -> int:
    target = find(name)
    with tempfile.TemporaryDirectory() as folder:
        run = target.open(Path(folder))
        known: Lines = set()
        room, num_kept = MAX_BYTES, 0
        for path in (CORPUS / name).glob("*"):
            room -= path.stat().st_size
        for data in inputs_of(name, target):
            known |= _lines_of(run, data)
        for path in sorted(found.iterdir(), key=lambda path: path.stat().st_size)[:MAX_LOOKED_AT]:
            data = path.read_bytes()
            if len(data) > room or num_kept == MAX_INPUTS:
                break
            more = _lines_of(run, data) - known
            if more:
                known |= more
                room -= len(data)
                num_kept += 1
                (CORPUS / name).mkdir(parents=True, exist_ok=True)
                (CORPUS / name / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
        return num_kept


def _lines_of(run: Run, data: bytes) -> Lines:
    """The lines of Octavo that an input runs."""
    lines: Lines = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if "/octavo/" not in frame.f_code.co_filename:
            return None
        lines.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        run(data)
    except Exception:
        return set()  # A failure is kept elsewhere.
    finally:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
    return lines


if __name__ == "__main__":
    main()
