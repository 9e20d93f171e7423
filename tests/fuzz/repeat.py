"""Run one input again, with the log and the traceback: `python -m tests.fuzz.repeat TARGET FILE`."""

from __future__ import annotations

import faulthandler
import logging
import sys
import tempfile
from pathlib import Path

from tests.fuzz.target import find
from tests.fuzz.watch import WAIT_FACTOR, watched


def main(name: str, path: str) -> None:
    logging.basicConfig()
    faulthandler.enable()
    target = find(name)
    data = Path(path).read_bytes()
    sys.stdout.write(f"{data[:2000]!r}\n")
    with tempfile.TemporaryDirectory() as folder:
        run = watched(target.open(Path(folder)), target.input_s)
        faulthandler.dump_traceback_later(WAIT_FACTOR * target.input_s, exit=True)
        run(data)
    sys.stdout.write("It ran to its end.\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
